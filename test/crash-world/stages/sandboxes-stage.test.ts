import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { type FoundFile, noteFound } from '../../../src/crash-world/files/found-file.ts';
import { readSandboxPlan } from '../../../src/crash-world/sandbox/sandbox-plan.ts';
import { changedSince } from '../../../src/crash-world/sandbox/unchanged-files.ts';
import { noteSandboxed } from '../../../src/crash-world/stages/files-stage.ts';
import { RESURRECTION } from '../../../src/crash-world/stages/resurrection.ts';
import { keepForLater, leaveLateUnanswered } from '../../../src/crash-world/stages/sandboxes-stage.ts';
import { noFiles } from '../../../src/model/file.ts';
import type { IncidentReport } from '../../../src/report/schema.ts';
import { socketAt } from '../../criu/inet-sockets.ts';
import { groupOf, processOf } from '../../criu/processes.ts';
import { emptyReport } from '../../report/example.ts';
import { pathFileOf } from '../live-group.ts';

const directory = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-sandboxes-')));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'file');

const imagedGroup = (name: string) => {
  writeFileSync(path, 'what it was');
  mkdirSync(join(directory, name));
  const sandbox = { unit: 'web.service', mounts: [], outside: [], privateDirectories: [] };
  const group = { ...groupOf([processOf(7)]), files: { ...noFiles, files: [pathFileOf(1, path)] }, sandbox };
  return { group, directory: join(directory, name), pagesBytes: 4096, plans: [] };
};

function reportOf(group: number): IncidentReport {
  const nothing = { reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] };
  return {
    ...emptyReport(),
    processes: [{ pid: 7, group, comm: 'web', outcome: 'pending' as const, ...nothing }],
  };
}

suite('a group that is restored while the system boots', () => {
  test('has its files noted before anybody is let go, and its plan written after that', () => {
    const names = RESURRECTION.stages.map(({ name }) => name);
    const at = (name: string): number => names.indexOf(name);
    assert.ok(0 < at('files') && at('files') < at('restore') && at('restore') < at('sandboxes'));
    // Nobody who runs is to be told that the other end of a connection is not there.
    assert.ok(at('files') < at('unanswered') && at('unanswered') < at('restore'));
    const [files, sandboxes] = ['files', 'sandboxes'].map((name) =>
      RESURRECTION.stages.find((one) => one.name === name),
    );
    assert.ok(!Object.keys(files?.needs ?? {}).includes('unchanged'));
    assert.ok(Object.keys(sandboxes?.needs ?? {}).includes('unchanged'));
  });

  test('is found to have another file if somebody who was let go has changed it before the plan was written', () => {
    const imaged = imagedGroup('changed');
    const unchanged = noteSandboxed([imaged]);
    const now = (): Map<string, FoundFile> => {
      const found = new Map<string, FoundFile>();
      noteFound(imaged.group.files, found);
      return found;
    };
    const before = now().get(path)?.stats.ctimeNs;
    // The kernel's clock for files goes on by ticks; the size stays.
    while (now().get(path)?.stats.ctimeNs === before) writeFileSync(path, 'another one');
    const report = reportOf(imaged.group.id);
    const [late, ...more] = keepForLater([imaged], unchanged, report, () => assert.fail());
    assert.deepEqual([late?.unit, more], ['web.service', []]);
    const plan = readSandboxPlan(imaged.directory);
    assert.deepEqual(changedSince(plan.unchanged, now()), [`${path} was changed while the system booted`]);
  });

  test('fails if nobody has noted its files', () => {
    const imaged = imagedGroup('not-noted');
    const report = reportOf(imaged.group.id);
    let ended = 0;
    assert.deepEqual(
      keepForLater([imaged], new Map(), report, () => ended++),
      [],
    );
    assert.equal(ended, 1);
    assert.equal(report.processes[0]?.outcome, 'failed');
    assert.deepEqual(report.processes[0]?.reasons, [
      'cannot be kept for later: its files were not noted before others ran',
    ]);
  });

  test('fails if its connections cannot be left unanswered until then', () => {
    const { group, ...rest } = imagedGroup('connected');
    const files = { ...group.files, files: [...group.files.files, { ...socketAt([192, 0, 2, 1]), id: 2 }] };
    const imaged = { ...rest, group: { ...group, files } };
    const report = reportOf(group.id);
    let ended = 0;
    const places = { cgroups: path, apart: join(directory, 'apart.json') };
    const { imaged: left } = leaveLateUnanswered([imaged], report, () => ended++, places);
    assert.deepEqual([left, ended], [[], 1]);
    assert.match(report.processes[0]?.reasons[0] ?? '', /^cannot be kept for later: /);
  });

  test('fails if it cannot be left which of its connections have an end elsewhere', () => {
    const { group, ...rest } = imagedGroup('apart');
    const socket = { ...socketAt([127, 0, 0, 1]), id: 2, apart: { pid: 12, comm: 'cache' } };
    const tables = [{ filesId: 1, descriptors: [{ fd: 5, fileId: 2, closeOnExec: false }] }];
    const imaged = { ...rest, group: { ...group, files: { ...group.files, files: [socket], tables } } };
    const report = reportOf(group.id);
    let ended = 0;
    const places = { apart: join(path, 'below a file') };
    const { imaged: left, apart } = leaveLateUnanswered([imaged], report, () => ended++, places);
    assert.deepEqual([left, ended], [[], 1]);
    assert.match(report.processes[0]?.reasons[0] ?? '', /^cannot be kept for later: /);
    // Whoever has the other end is told of it all the same.
    assert.deepEqual(
      apart.map(({ own, other }) => [own.port, other]),
      [[80, 'PID 12 (cache)']],
    );
  });
});
