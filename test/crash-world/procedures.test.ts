import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { defaultConfig } from '../../src/config/config.ts';
import type { ReadyGroup } from '../../src/crash-world/files-stage.ts';
import { awaitProcedures } from '../../src/crash-world/procedures.ts';
import { type RestoredGroup, withoutUnwatched } from '../../src/crash-world/restore-stage.ts';
import type { ProcedurePlan } from '../../src/criu/images/index.ts';
import type { ProcedureOutcome, ProcedureWatch } from '../../src/criu/restore/index.ts';
import type { CrashProcedure } from '../../src/model/crash-procedure.ts';
import { groupOf, processOf } from '../criu/processes.ts';
import { emptyReport } from '../report/example.ts';

const procedure: CrashProcedure = {
  ...{ address: 0x1000, timeLimitMilliseconds: undefined, resurrections: 0 },
  delivery: {
    ...{ kind: 'call', entry: 0, argument: 0n, stackBase: 0, stackSizeBytes: 0x8000, restorer: 0 },
  },
};

/** A group of one process with a procedure. Its images are nowhere: nothing may be restored from them. */
function ready(pid: number, mayContinue: boolean): ReadyGroup {
  const plan: ProcedurePlan = { pid, comm: 'p', state: 'delivered', procedure, frame: 0x7000, mayContinue };
  const directory = '/nonexistent/otherworld-test';
  return { group: groupOf([processOf(pid)]), directory, pagesBytes: 0, plans: [plan], found: new Map() };
}

/** What is made of the outcome of the procedure of a process that may not continue. */
async function concluded(pid: number, watched: () => Promise<ProcedureOutcome[]>) {
  const watch = { outcomes: watched, close: () => {} } as unknown as ProcedureWatch;
  const report = emptyReport();
  report.processes.push({
    ...{ pid, comm: 'p', outcome: 'restored', fate: 'for-its-procedure' },
    ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] },
  });
  const restored: RestoredGroup = { group: pid, pids: [pid], imaged: ready(pid, false) };
  const settings = { ...defaultConfig()['crash-procedure'], fallback: 'continue' as const };
  const left = await awaitProcedures([restored], watch, settings, { report, endImages: () => {} });
  return { pids: left.flatMap(({ pids }) => pids), procedure: report.processes[0]?.crashProcedure };
}

function sleeper(): ChildProcess & { pid: number } {
  const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
  assert.ok(child.pid !== undefined);
  return Object.assign(child, { pid: child.pid });
}

test('who may not continue is never let go on: one that overran its time is killed', async () => {
  const child = sleeper();
  const exit = once(child, 'exit');
  const { pid } = child;
  const { pids, procedure } = await concluded(pid, async () => [
    { pid, state: 'overran', detail: 'after 1 s' },
  ]);
  assert.deepEqual(await exit, [null, 'SIGKILL']);
  assert.deepEqual(pids, []);
  assert.deepEqual(procedure, {
    ...{ delivery: 'call', state: 'overran', detail: 'after 1 s; killed', fallback: 'give-up' },
  });
});

test('who may not continue is not restored again if its procedure crashes', async () => {
  const { pids, procedure } = await concluded(1, async () => [
    { pid: 1, state: 'crashed', detail: 'by signal 11' },
  ]);
  assert.deepEqual(pids, []);
  assert.deepEqual(procedure, {
    ...{ delivery: 'call', state: 'crashed', detail: 'by signal 11', fallback: 'give-up' },
  });
});

test('who may not continue is there afterwards if it has executed another program', async () => {
  const { pids } = await concluded(1, async () => [{ pid: 1, state: 'replaced', detail: undefined }]);
  assert.deepEqual(pids, [1]);
});

test('who may not continue does not outlive those who watch it', async () => {
  const child = sleeper();
  const exit = once(child, 'exit');
  await assert.rejects(
    concluded(child.pid, () => Promise.reject(new Error('the kernel tells nothing more'))),
    /tells nothing more/,
  );
  assert.deepEqual(await exit, [null, 'SIGKILL']);
});

test('where nobody can watch procedures, only those come back that may continue', () => {
  const report = emptyReport();
  for (const pid of [10, 11])
    report.processes.push({
      ...{ pid, comm: 'p', group: pid, outcome: 'pending' },
      ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] },
    });
  const ended: number[] = [];
  const left = withoutUnwatched([ready(10, true), ready(11, false)], {
    report,
    endImages: ({ group }) => ended.push(group.id),
  });
  assert.deepEqual([left.map(({ group }) => group.id), ended], [[10], [11]]);
  assert.deepEqual(
    report.processes.map(({ outcome }) => outcome),
    ['pending', 'failed'],
  );
});
