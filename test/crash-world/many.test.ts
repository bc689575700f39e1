// What the crash world does for processes with very many of one thing.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { examineGroup } from '../../src/crash-world/processes/examine.ts';
import { keptOf } from '../../src/crash-world/sandbox/unanswered.ts';
import { filesToFind } from '../../src/crash-world/stages/capture-stage.ts';
import { noFiles } from '../../src/model/file.ts';
import { socketAt } from '../criu/inet-sockets.ts';
import { assertInProportion, elementsLookedAt } from '../work.ts';
import { pathFileOf } from './live-group.ts';

suite('very many things', () => {
  // Who looks has other files open while it looks.
  const subject = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
  before(async () => {
    // Who answers has mapped its libraries.
    subject.stdin.write('ready');
    await once(subject.stdout, 'data');
  });
  after(() => subject.kill('SIGKILL'));

  test('areas of files: each is looked for among the mappings without looking at all of them', () => {
    const things = 1024;
    const areas = Array.from({ length: things }, (_, i) => {
      const start = (i + 1) * 0x1_0000;
      return { start, end: start + 0x1000, isOfFile: true, fileId: 1 };
    });
    const pid = subject.pid ?? 0;
    const own = { pid, isZombie: false, filesId: 1, cwdFileId: 1, rootFileId: 1, areas };
    const mappings = readdirSync(`/proc/${pid}/map_files`).length;
    let problems: readonly string[] = [];
    const work = elementsLookedAt(() => {
      problems = examineGroup({ files: [], tables: [], processes: [own] }, new Map());
    });
    assert.equal(problems.filter((one) => one.endsWith('is of no file any more')).length, things);
    assert.ok(mappings >= 15, `${mappings} mappings`);
    assert.ok(work < 12 * things, `${work} looks at ${things} areas and ${mappings} mappings`);
  });

  test('files that were made anew: each is found without looking at all of them', () => {
    assertInProportion((things) => {
      const files = Array.from({ length: things }, (_, i) => {
        const { path, identity } = pathFileOf(i, `/proc/${process.pid}/status`);
        return { path, identity: { ...identity, inode: i, generation: 1 } };
      });
      const made = new Map(files.map((file, i) => [file, { made: { inode: 1000 + i, generation: 2 } }]));
      const outcomeOf = (file: object) => made.get(file as never);
      let found: ReturnType<typeof filesToFind> = [];
      const work = elementsLookedAt(() => {
        found = filesToFind({ filesToCheck: files, unwritten: files } as never, { outcomeOf } as never);
      });
      assert.deepEqual(
        found.map(({ identity }) => identity.inode),
        files.map((_, i) => 1000 + i),
      );
      return work;
    });
  });

  test('connections that wait for a sandbox: which ports are kept is known from one look', () => {
    assertInProportion((things) => {
      const files = Array.from({ length: things }, (_, i) => [
        { ...socketAt([192, 0, 2, 1]), sourcePort: 1000 + i },
        { ...socketAt([192, 0, 2, 1], false), sourcePort: 9000 + i },
      ]).flat();
      let ports = 0;
      const work = elementsLookedAt(() => {
        ports = keptOf({ files: { ...noFiles, files } }).ports.length;
      });
      assert.equal(ports, things);
      return work;
    });
  });
});
