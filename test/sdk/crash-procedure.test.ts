import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { runningArchitecture } from '../../src/arch/index.ts';
import { captureCrashProcedures } from '../../src/capture/crash-procedure.ts';
import { procedureFitness } from '../../src/capture/procedure/fitness.ts';
import { procedureReasons } from '../../src/capture/procedure/in-sandbox.ts';
import { applyCrashProcedures } from '../../src/criu/images/crash-procedure.ts';
import { type CapturedProcedure, notContinuedStatus } from '../../src/model/crash-procedure.ts';
import type { ProcessGroup } from '../../src/model/group.ts';
import type { UnexpectedLoss } from '../../src/model/loss.ts';
import { itemCapacity } from '../../src/model/procedure-incident.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';
import { codeOf, stage, startSubject } from './stage.ts';

const occasion = { id: '20261122-101112-c0ffee', panicTimeNanoseconds: 1_795_000_000_000_000_001n };

/** Stops the subject, delivers its procedure, lets it run; its last line and its end. */
async function resurrect(mode: string, change = (group: ProcessGroup) => group) {
  const subject = await startSubject(mode);
  const staged = await stage(subject.pid);
  const group = change(staged.group);
  const applied = applyCrashProcedures(group, captureCrashProcedures(staged.kernel, group), occasion);
  await staged.apply(applied.group);
  const { value } = await subject.lines.next();
  return {
    plans: applied.plans,
    exit: await subject.exit,
    said: value === undefined ? undefined : JSON.parse(value),
  };
}

function withDoubt(group: ProcessGroup): ProcessGroup {
  const doubt = { tid: 7, syscall: 'sendto', fd: 5, reason: 'was running in the kernel' };
  return {
    ...group,
    processes: group.processes.map((process) => ({
      ...process,
      findings: { ...process.findings, inDoubt: [doubt] },
    })),
  };
}

for (const mode of ['continue', 'jump']) {
  test(`a procedure that goes on (${mode}) leaves every register as the panic found it`, async () => {
    const { plans, said, exit } = await resurrect(mode, withDoubt);
    assert.equal(plans[0]?.state, 'delivered');
    assert.deepEqual(said, {
      ...{
        wrong: 0,
        runs: 1,
        state: 2,
        id: occasion.id,
        resurrections: 1,
        interrupted: '',
        lost: 0,
        aligned: 1,
      },
      ...{ panicTime: '1795000000000000001', doubt: 'sendto: was running in the kernel', doubtFd: 5 },
    });
    assert.equal(exit, '0');
  });
}

/** The group as it comes back for its procedure alone, without fd 5. */
function forProcedure(group: ProcessGroup, record: CapturedProcedure | undefined): ProcessGroup {
  const unexpected: UnexpectedLoss[] = [
    { kind: 'descriptors', of: 'fd 5', fd: 5, what: 'fd 5 is gone: it has a lease' },
  ];
  const { restorers } = runningArchitecture().signalFrame;
  return {
    ...group,
    processes: group.processes.map((process) => {
      const user = codeOf(process.pid);
      const end = procedureFitness({ process, record, isSandboxed: false, user, restorers });
      if (typeof end === 'string') assert.fail(end);
      const [first = assert.fail()] = process.threads;
      const threads = [{ ...first, syscall: { ...first.syscall, syscall: 'pause' } }];
      return {
        ...process,
        threads,
        findings: { ...process.findings, unexpected },
        procedureAlone: { ...end, refusedFor: [], isReady: false },
      };
    }),
  };
}

for (const mode of ['told', 'told-jump']) {
  test(`a procedure that goes on though it may not (${mode}) ends its process, without a line of its program`, async () => {
    const subject = await startSubject(mode);
    const { group, kernel, apply } = await stage(subject.pid);
    const captured = captureCrashProcedures(kernel, group);
    const applied = applyCrashProcedures(forProcedure(group, captured[0]), captured, occasion);
    assert.deepEqual(
      applied.plans.map((plan) => plan.state === 'delivered' && plan.mayContinue),
      [false],
    );
    // Nothing is said to become of the call that it was in.
    const [process] = applied.group.processes;
    assert.deepEqual(process?.procedureAlone?.isReady, true);
    assert.equal(process?.threads[0]?.syscall.syscall, undefined);
    await apply(applied.group);
    const said = JSON.parse((await subject.lines.next()).value);
    assert.deepEqual(said, { may: 0, lost: 1, what: 'fd 5 is gone: it has a lease' });
    assert.equal(await subject.exit, String(notContinuedStatus));
    // What the program would print next.
    assert.equal((await subject.lines.next()).value, undefined);
  });
}

for (const [losses, doubts, answer] of [
  [0, itemCapacity + 1, 0],
  [itemCapacity - 1, 2, 0],
  [itemCapacity, 1, -1],
  [itemCapacity + 1, 0, -1],
] as const) {
  test(`where ${losses} losses and ${doubts} doubts find no room, whether fd 5 is lost is ${answer}`, async () => {
    const { said } = await resurrect('told', (group) => ({
      ...group,
      processes: group.processes.map((process) => ({
        ...process,
        findings: {
          ...process.findings,
          losses: Array.from({ length: losses }, () => ({ kind: 'connections', of: '', what: '' }) as const),
          inDoubt: Array.from({ length: doubts }, () => ({ tid: 7, syscall: 'write', reason: '' })),
        },
      })),
    }));
    assert.equal(said.lost, answer);
  });
}

test('a procedure that may continue is told that it may', async () => {
  const { said, exit } = await resurrect('told');
  assert.deepEqual(said, { may: 1, lost: 0, what: '' });
  assert.equal(exit, '0');
});

test('a process for its procedure alone is never without it', async () => {
  const subject = await startSubject('overrun');
  const { group, kernel, apply } = await stage(subject.pid);
  const captured = captureCrashProcedures(kernel, group);
  const alone = forProcedure(group, captured[0]);
  const ignored: CapturedProcedure = { pid: subject.pid, valid: false, reason: 'has a wrong checksum' };
  assert.throws(() => applyCrashProcedures(alone, [ignored], occasion), /has a wrong checksum/);
  assert.throws(() => applyCrashProcedures(alone, [], occasion), /has no crash procedure/);
  await apply(group);
  process.kill(subject.pid, 'SIGKILL');
  await subject.exit;
});

test('a process in a sandbox whose procedure would be called is refused, since it is not called there', async () => {
  const subject = await startSubject('told');
  const { group, kernel, apply } = await stage(subject.pid);
  const sandbox: Sandbox = { unit: 'a.service', mounts: [], outside: [], privateDirectories: [] };
  const reason = 'has a crash procedure, which is not called in a sandbox';
  assert.deepEqual([...procedureReasons(kernel, { ...group, sandbox })], [[subject.pid, reason]]);
  assert.equal(procedureReasons(kernel, group).size, 0);
  const without = { ...group, files: { ...group.files, memfds: [] } };
  assert.equal(procedureReasons(kernel, { ...without, sandbox }).size, 0);
  await apply(group);
  process.kill(subject.pid, 'SIGKILL');
  await subject.exit;
});

test('a signal is queued with siginfo, and its handler finds the incident', async () => {
  const { plans, said } = await resurrect('signal');
  assert.equal(plans[0]?.state, 'delivered');
  assert.equal(said.wrong, 0);
  assert.equal(said.runs, 1);
  assert.equal(said.state, 2);
  assert.equal(said.id, occasion.id);
});

test('what a procedure returns is the exit status, unless it continues', async () => {
  assert.equal((await resurrect('exit')).exit, '7');
});

test('a procedure that faults ends its process as any fault does', async () => {
  assert.equal((await resurrect('fault')).exit, 'SIGILL');
});

test('a process without a record gets no plan', async () => {
  const subject = await startSubject('nothing');
  const staged = await stage(subject.pid);
  assert.deepEqual(captureCrashProcedures(staged.kernel, staged.group), []);
  await staged.apply(staged.group);
  process.kill(subject.pid, 'SIGKILL');
  assert.equal(await subject.exit, 'SIGKILL');
});

test('a thread that died in its procedure goes on in it, and is not called again', async () => {
  const subject = await startSubject('overrun');
  const first = await stage(subject.pid);
  const once = applyCrashProcedures(first.group, captureCrashProcedures(first.kernel, first.group), occasion);
  await first.apply(once.group);
  await setTimeout(200);
  const second = await stage(subject.pid);
  const again = applyCrashProcedures(
    second.group,
    captureCrashProcedures(second.kernel, second.group),
    occasion,
  );
  assert.deepEqual(
    again.plans.map(({ state }) => state),
    ['ignored'],
  );
  assert.equal(again.group.processes[0], second.group.processes[0]);
  await second.apply(again.group);
  process.kill(subject.pid, 'SIGKILL');
  await subject.exit;
});
