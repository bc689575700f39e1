import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { defaultConfig } from '../../../src/config/config.ts';
import type { ReadyGroup } from '../../../src/crash-world/stages/files-stage.ts';
import { awaitProcedures } from '../../../src/crash-world/stages/procedures.ts';
import { type RestoredGroup, withoutUnwatched } from '../../../src/crash-world/stages/restore-stage.ts';
import { scopeOf } from '../../../src/crash-world/systemd/adoption.ts';
import { endScope, startTimesOf } from '../../../src/crash-world/systemd/scope-end.ts';
import type { ProcedurePlan } from '../../../src/criu/images/index.ts';
import type { ProcedureOutcome, ProcedureWatch } from '../../../src/criu/restore/index.ts';
import type { CrashProcedure } from '../../../src/model/crash-procedure.ts';
import { groupOf, processOf } from '../../criu/processes.ts';
import { emptyReport } from '../../report/example.ts';

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

/** A directory like that of cgroup v2, with the scope of each group. */
function scopes(...groups: readonly number[]): string {
  const cgroups = mkdtempSync(join(tmpdir(), 'otherworld-cgroups-'));
  after(() => rmSync(cgroups, { recursive: true }));
  for (const group of groups) {
    const scope = join(cgroups, scopeOf(group).cgroup);
    mkdirSync(scope, { recursive: true });
    writeFileSync(join(scope, 'cgroup.kill'), '0');
  }
  return cgroups;
}

/** Whether all that is in the scope of a group was ended. */
function isEnded(cgroups: string, group: number): boolean {
  return readFileSync(join(cgroups, scopeOf(group).cgroup, 'cgroup.kill'), 'latin1') === '1';
}

type Tell = (outcome: ProcedureOutcome) => void;

/** What is made of the outcomes of the procedures of processes that may not continue. */
async function concludedAll(pids: readonly number[], watched: (tell: Tell) => Promise<void>) {
  const outcomes = (_: unknown, __: unknown, tell: Tell) => watched(tell);
  const watch = { outcomes, close: () => {} } as unknown as ProcedureWatch;
  const report = emptyReport();
  const cgroups = scopes(...pids);
  for (const pid of pids)
    report.processes.push({
      ...{ pid, comm: 'p', outcome: 'restored', fate: 'for-its-procedure' },
      ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] },
    });
  const restored = pids.map(
    (pid): RestoredGroup => ({
      ...{ group: pid, pids: [pid], imaged: ready(pid, false), releasedAt: 0 },
      started: startTimesOf([pid]),
    }),
  );
  const procedure = { ...defaultConfig()['crash-procedure'], fallback: 'continue' as const };
  const settings = { ...procedure, timeLimitMinutes: 30 };
  const means = { report, endImages: () => {}, cgroups };
  const left = await awaitProcedures(restored, watch, settings, means).catch((error: Error) => error);
  return {
    left: left instanceof Error ? left : left.flatMap(({ pids }) => pids),
    procedures: report.processes.map(({ crashProcedure }) => crashProcedure),
    ended: pids.map((pid) => isEnded(cgroups, pid)),
  };
}

async function concluded(outcome: ProcedureOutcome) {
  const { left, procedures, ended } = await concludedAll([outcome.pid], async (tell) => tell(outcome));
  return { pids: left, procedure: procedures[0], ended: ended[0] };
}

function sleeper(): ChildProcess & { pid: number } {
  const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
  assert.ok(child.pid !== undefined);
  return Object.assign(child, { pid: child.pid });
}

async function gone(): Promise<{ readonly pid: number }> {
  const child = sleeper();
  child.kill('SIGKILL');
  await once(child, 'exit');
  return child;
}

test('who may not continue is never let go on: one that overran its time is killed, and all that it forked', async () => {
  const child = sleeper();
  const exit = once(child, 'exit');
  const { pid } = child;
  const { pids, procedure, ended } = await concluded({ pid, state: 'overran', detail: 'after 1 s' });
  assert.deepEqual(await exit, [null, 'SIGKILL']);
  assert.deepEqual([pids, ended], [[], true]);
  assert.deepEqual(procedure, {
    ...{ delivery: 'call', state: 'overran', detail: 'after 1 s; killed', fallback: 'give-up' },
  });
});

test('who may not continue is not restored again if its procedure crashes', async () => {
  const { pid } = await gone();
  const { pids, procedure } = await concluded({ pid, state: 'crashed', detail: 'by signal 11' });
  assert.deepEqual(pids, []);
  assert.deepEqual(procedure, {
    ...{ delivery: 'call', state: 'crashed', detail: 'by signal 11', fallback: 'give-up' },
  });
});

for (const state of ['crashed', 'exited'] as const)
  test(`what a process that has ${state} and may not continue had forked does not go on either`, async () => {
    const { pid } = await gone();
    const { ended } = await concluded({ pid, state, detail: undefined });
    assert.equal(ended, true);
  });

test('who may not continue is there afterwards if it has executed another program', async () => {
  const child = sleeper();
  const { pids, ended } = await concluded({ pid: child.pid, state: 'replaced', detail: undefined });
  assert.deepEqual([pids, ended], [[child.pid], false]);
  assert.equal(child.kill('SIGKILL'), true);
});

test('who may not continue is ended when its own time is over, not when that of others is', async () => {
  const child = sleeper();
  const exit = once(child, 'exit');
  await concludedAll([child.pid], async (tell) => {
    tell({ pid: child.pid, state: 'overran', detail: undefined });
    // It is gone while others are still waited for.
    assert.deepEqual(await exit, [null, 'SIGKILL']);
  });
});

test('who may not continue does not outlive those who watch it, unless it is another program by then', async () => {
  const [other, child] = [sleeper(), sleeper()];
  const exit = once(child, 'exit');
  const { left, procedures, ended } = await concludedAll([other.pid, child.pid], async (tell) => {
    tell({ pid: other.pid, state: 'replaced', detail: undefined });
    throw new Error('the kernel tells nothing more');
  });
  assert.match(left instanceof Error ? left.message : '', /tells nothing more/);
  assert.deepEqual(await exit, [null, 'SIGKILL']);
  assert.deepEqual(ended, [false, true]);
  assert.deepEqual(procedures, [
    { delivery: 'call', state: 'replaced' },
    {
      ...{ delivery: 'call', state: 'delivered', fallback: 'give-up' },
      detail:
        'killed: it may not stay in it, and cannot be watched any longer (the kernel tells nothing more)',
    },
  ]);
  // Still there, and only now ended.
  const last = once(other, 'exit');
  assert.equal(other.kill('SIGTERM'), true);
  assert.deepEqual(await last, [null, 'SIGTERM']);
});

test('nobody is killed who has the number of a process that is gone', async () => {
  const child = sleeper();
  const [ticks = 0] = startTimesOf([child.pid]).values();
  const group = { group: child.pid, started: new Map([[child.pid, ticks - 1]]) };
  assert.equal(endScope(group, scopes(child.pid)), false);
  const exit = once(child, 'exit');
  assert.equal(child.kill('SIGTERM'), true);
  assert.deepEqual(await exit, [null, 'SIGTERM']);
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
