import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { type FoundFile, noteFound } from '../../../src/crash-world/files/found-file.ts';
import { MadeFiles } from '../../../src/crash-world/sandbox/made-files.ts';
import { changedSince, noteUnchanged } from '../../../src/crash-world/sandbox/unchanged-files.ts';
import { pathFileOf } from '../live-group.ts';

const directory = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-made-')));
after(() => rmSync(directory, { recursive: true }));
const at = (name: string): string => join(directory, name);

suite('files that were made for processes that do not come back', () => {
  test('are taken away, but for those that are others by now', () => {
    const made = new MadeFiles();
    for (const name of ['one', 'two', 'three']) writeFileSync(at(name), name);
    made.note(['one', 'two', 'three'].map(at));
    rmSync(at('two'));
    writeFileSync(at('new'), '');
    renameSync(at('new'), at('three'));
    assert.deepEqual(made.remove(), []);
    assert.deepEqual(
      ['one', 'two', 'three'].map((name) => existsSync(at(name))),
      [false, false, true],
    );
  });

  test('are taken away if they are sockets that CRIU has made, and no others that came later', async () => {
    const made = new MadeFiles();
    const listen = async (name: string): Promise<Server> => {
      const server = createServer();
      await once(server.listen(at(name)), 'listening');
      return server;
    };
    const before = await listen('before');
    made.await(['before', 'after', 'replaced', 'later', 'file', 'none/x'].map(at));
    const after = await listen('after');
    const replaced = await listen('replaced');
    writeFileSync(at('file'), '');
    made.came();
    const later = await listen('later');
    const other = await listen('other');
    renameSync(at('other'), at('replaced'));
    assert.deepEqual(made.remove(), []);
    assert.deepEqual(
      ['before', 'after', 'replaced', 'later', 'file'].map((name) => existsSync(at(name))),
      [true, false, true, true, true],
    );
    for (const server of [before, after, replaced, later, other]) server.close();
  });

  test('stay if they do', () => {
    const made = new MadeFiles();
    writeFileSync(at('kept'), '');
    made.note([at('kept')]);
    made.keep();
    assert.deepEqual(made.remove(), []);
    assert.ok(existsSync(at('kept')));
  });
});

suite('files of a service that is brought back while others run', () => {
  const files = () => [pathFileOf(1, at('locked')), pathFileOf(2, at('other'))];
  const found = (): Map<string, FoundFile> => {
    const now = new Map<string, FoundFile>();
    noteFound({ files: files() }, now);
    return now;
  };

  test('are refused if somebody has changed them in place meanwhile', () => {
    for (const name of ['locked', 'other']) writeFileSync(at(name), 'old');
    const unchanged = noteUnchanged({ files: files() });
    assert.equal(unchanged.length, 2);
    assert.deepEqual(changedSince(unchanged, found()), []);
    const before = unchanged[0]?.changed;
    // The kernel's clock for files goes on by ticks.
    while (String(found().get(at('locked'))?.stats.ctimeNs) === before) writeFileSync(at('locked'), 'new');
    assert.deepEqual(changedSince(unchanged, found()), [
      `${at('locked')} was changed while the system booted`,
    ]);
  });

  test('are not compared with those that a sandbox has by the same path', () => {
    writeFileSync(at('other'), 'old');
    const unchanged = noteUnchanged({ files: files() });
    writeFileSync(at('inside'), 'another');
    renameSync(at('inside'), at('other'));
    assert.deepEqual(changedSince(unchanged, found()), []);
  });
});
