import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type FoundFile, noteFound } from '../../../src/crash-world/files/found-file.ts';
import { examinedOf, examineGroup } from '../../../src/crash-world/processes/examine.ts';
import type { ReadyGroup } from '../../../src/crash-world/stages/files-stage.ts';
import { restoreGroups } from '../../../src/crash-world/stages/restore-stage.ts';
import { writeRestorePlan } from '../../../src/criu/images/plan/write-plan.ts';
import { moveTo } from '../../../src/criu/restore/restore-cgroup.ts';
import type { IncidentReport } from '../../../src/report/schema.ts';
import { cgroups, findAction, findOwn, needsCgroups } from '../../criu/restore/cgroups.ts';
import { emptyReport } from '../../report/example.ts';
import { pathFileOf, stoppedGroup } from '../live-group.ts';

const place = `/otherworld-test-stage-${process.pid}`;

/** Restores the group's process, which stops itself when it has opened what it opens, and lets it go on. */
const restore = `kill -CONT $subject
until [ -e /proc/$subject/fd/3 ]; do sleep 0.01; done
until grep -q '^State:.T' /proc/$subject/status; do sleep 0.01; done
echo $subject >$own/cgroup.procs
action pre-resume
kill -CONT $subject
until [ -e "$ran" ] || grep -q 'frozen 1' $own/cgroup.events; do sleep 0.01; done`;

suite('restoring groups', needsCgroups, () => {
  let directory = '';
  const subjects: ChildProcess[] = [];
  const path = (name: string) => join(directory, name);

  beforeEach(() => {
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-stage-')));
    writeFileSync(path('file'), 'what it was');
  });
  afterEach(() => {
    for (const subject of subjects.splice(0)) {
      if (existsSync(`/proc/${subject.pid}`)) moveTo(subject.pid ?? 0, '/', cgroups);
      subject.kill('SIGKILL');
    }
    if (existsSync(join(cgroups ?? '', place))) rmdirSync(join(cgroups ?? '', place));
    rmSync(directory, { recursive: true });
  });

  /** A group of one process that opens `file`; as soon as it runs, it leaves a mark and executes `then`. */
  async function group(name: string, then: string, found: Map<string, FoundFile>): Promise<ReadyGroup> {
    const script = `kill -STOP $$; exec 3<${path('file')}; kill -STOP $$; ${then}; echo >${path(`${name}-ran`)}; exec sleep 1000`;
    const subject = spawn('sh', ['-c', script], { stdio: 'ignore' });
    subjects.push(subject);
    const live = await stoppedGroup(subject);
    const opened = pathFileOf(live.files.files.length + 1, path('file'));
    const [table] = live.files.tables;
    const inherited = (table?.descriptors ?? []).filter(({ fd }) => fd !== 3);
    const descriptors = [...inherited, { fd: 3, fileId: opened.id, closeOnExec: false }];
    const files = { ...live.files, files: [...live.files.files, opened] };
    const group = { ...live, files: { ...files, tables: [{ filesId: live.id, descriptors }] } };
    mkdirSync(path(name));
    writeRestorePlan(path(name), group);
    noteFound(group.files, found);
    return { group, directory: path(name), pagesBytes: 0, plans: [], found };
  }

  /** A `criu` for the group in the directory of that name, which does first what `before` says. */
  function criu(name: string, { group }: ReadyGroup, before: string): void {
    const head = [findOwn, findAction, `subject=${group.id}`, `ran=${path(`${name}-ran`)}`];
    writeFileSync(path(`${name}/criu`), `#!/bin/sh\n${[...head, before, restore].join('\n')}\n`);
    chmodSync(path(`${name}/criu`), 0o755);
  }

  /** Who ran when the first group was about to be let go; undefined if none was. */
  let ranBefore: boolean[] | undefined;
  /** How many groups waited behind each. */
  let waitingFor: number[] = [];

  async function stage(groups: readonly ReadyGroup[], report: IncidentReport): Promise<number[]> {
    ranBefore = undefined;
    waitingFor = [];
    const beforeRelease = (): void => {
      ranBefore = groups.map((ready) => existsSync(`${ready.directory}-ran`));
    };
    const restored = await restoreGroups(
      groups,
      { report, save: () => undefined, endImages: () => undefined, beforeRelease },
      () => place,
      (ready, waiting) => {
        waitingFor.push(waiting.length);
        return {
          command: [join(ready.directory, 'criu')],
          cgroups,
          timeoutSeconds: 20,
          examine: () => examineGroup(examinedOf(ready.group), ready.found),
        };
      },
    );
    return restored.map(({ group }) => group);
  }

  function reportOf(groups: readonly ReadyGroup[]): IncidentReport {
    const entry = { comm: 'subject', outcome: 'pending' as const };
    const nothing = () => ({ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] });
    const processes = groups.map(({ group: { id } }) => ({ pid: id, group: id, ...entry, ...nothing() }));
    return { ...emptyReport(), processes };
  }

  const swap = (): string => `ln -sf /etc/passwd ${path('file')}`;

  test('a group that runs again cannot change what a later one opens: nobody runs before all are there', async () => {
    const found = new Map<string, FoundFile>();
    const groups = [await group('first', swap(), found), await group('second', 'true', found)];
    criu('first', groups[0]!, '');
    criu('second', groups[1]!, '');
    const report = reportOf(groups);
    assert.deepEqual(
      await stage(groups, report),
      groups.map(({ group: { id } }) => id),
    );
    assert.deepEqual(
      report.processes.map(({ outcome, reasons }) => [outcome, reasons]),
      [
        ['restored', []],
        ['restored', []],
      ],
    );
    assert.deepEqual(ranBefore, [false, false]);
    assert.deepEqual(waitingFor, [1, 0]);
    while (!existsSync(path('first-ran'))) await sleep(5);
    assert.equal(readlinkSync(path('file')), '/etc/passwd');
  });

  test('a group for which another file was opened than the one that was checked is refused, and no other', async () => {
    const found = new Map<string, FoundFile>();
    const groups = [await group('first', 'true', found), await group('second', 'true', found)];
    criu('first', groups[0]!, '');
    criu('second', groups[1]!, swap());
    const report = reportOf(groups);
    assert.deepEqual(await stage(groups, report), [groups[0]?.group.id]);
    const [first, second] = report.processes;
    assert.equal(first?.outcome, 'restored');
    assert.equal(second?.outcome, 'failed');
    assert.match(second?.reasons[0] ?? '', /^process \d+: fd 3 is another file than \/.*\/file/);
    assert.ok(!existsSync(path('second-ran')));
  });

  test('nothing says that somebody may run where no group can be restored', async () => {
    const found = new Map<string, FoundFile>();
    const groups = [await group('only', 'true', found)];
    criu('only', groups[0]!, 'exit 1');
    assert.deepEqual(await stage(groups, reportOf(groups)), []);
    assert.equal(ranBefore, undefined);
  });
});
