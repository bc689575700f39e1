import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { captureCrashProcedures } from '../../src/capture/crash-procedure.ts';
import { applyCrashProcedures } from '../../src/criu/images/crash-procedure.ts';
import { forceContinue } from '../../src/criu/restore/force-continue.ts';
import { type ProcedureOutcome, ProcedureWatch } from '../../src/criu/restore/procedure-watch.ts';
import { ProcessEvents } from '../../src/criu/restore/process-events.ts';
import { type Subject, stage, start, startSubject } from './stage.ts';

const occasion = { id: '20261122-101112-c0ffee', panicTimeNanoseconds: 1n };

/** Delivers the subject's procedure and tells what the watch saw of it. */
async function watch(subject: Subject, limitMilliseconds = 5000): Promise<Partial<ProcedureOutcome>> {
  const staged = await stage(subject.pid);
  const captured = captureCrashProcedures(staged.kernel, staged.group);
  const applied = applyCrashProcedures(staged.group, captured, occasion);
  const watching = new ProcedureWatch();
  await staged.apply(applied.group);
  const delivered = applied.plans.filter((plan) => plan.state === 'delivered');
  const outcomes = await watching.outcomes(delivered, limitMilliseconds);
  watching.close();
  const { pid, ...outcome } = outcomes[0] ?? {};
  assert.equal(pid, subject.pid);
  return outcome;
}

test('the watch tells of a procedure that continues, and of one that answers its signal', async () => {
  const continuing = { state: 'continued', detail: undefined };
  const program = join(import.meta.dirname, 'node-subject.js');
  // Both live for longer than a busy machine takes to look.
  for (const subject of [await startSubject('stay'), await start(process.execPath, [program, '60000'])]) {
    assert.deepEqual(await watch(subject), continuing);
    process.kill(subject.pid, 'SIGKILL');
    await subject.exit;
  }
});

test('what a process for its procedure alone says in its record is not its end', async () => {
  const subject = await startSubject('stay');
  const staged = await stage(subject.pid);
  const captured = captureCrashProcedures(staged.kernel, staged.group);
  const applied = applyCrashProcedures(staged.group, captured, occasion);
  const watching = new ProcedureWatch();
  await staged.apply(applied.group);
  // It continues, and lives on.
  await subject.lines.next();
  const [plan] = applied.plans;
  assert.ok(plan?.state === 'delivered');
  const outcomes = await watching.outcomes([{ ...plan, mayContinue: false }], 300);
  watching.close();
  assert.deepEqual(outcomes, [{ pid: subject.pid, state: 'overran', detail: 'after 0.3 s' }]);
  process.kill(subject.pid, 'SIGKILL');
  await subject.exit;
});

test('the time of a procedure counts from the release of its process, and each outcome is told at once', async () => {
  const [over, waiting] = [await startSubject('overrun'), await startSubject('overrun')];
  const watching = new ProcedureWatch();
  const plans = [];
  for (const subject of [over, waiting]) {
    const staged = await stage(subject.pid);
    const captured = captureCrashProcedures(staged.kernel, staged.group);
    const applied = applyCrashProcedures(staged.group, captured, occasion);
    await staged.apply(applied.group);
    const [plan] = applied.plans;
    assert.ok(plan?.state === 'delivered');
    plans.push(plan);
  }
  const now = performance.now();
  const told: number[] = [];
  const processes = plans.map((plan) => ({
    ...plan,
    releasedAt: plan.pid === over.pid ? now - 100_000 : now,
  }));
  const outcomes = await watching.outcomes(processes, 100_000, ({ pid }) => {
    told.push(pid);
    if (pid === over.pid) process.kill(waiting.pid, 'SIGKILL');
  });
  watching.close();
  assert.deepEqual(told, [over.pid, waiting.pid]);
  assert.deepEqual(
    outcomes.map(({ state }) => state),
    ['overran', 'crashed'],
  );
  process.kill(over.pid, 'SIGKILL');
  await over.exit;
});

test('what the watch knew before the kernel told nothing more is told', async () => {
  const subject = await startSubject('exec');
  const staged = await stage(subject.pid);
  const captured = captureCrashProcedures(staged.kernel, staged.group);
  const applied = applyCrashProcedures(staged.group, captured, occasion);
  const watching = new ProcedureWatch();
  await staged.apply(applied.group);
  await subject.exit;
  await setTimeout(500);
  watching.close();
  const [plan] = applied.plans;
  assert.ok(plan?.state === 'delivered');
  const nobody = { ...plan, pid: process.pid, mayContinue: false };
  const told: string[] = [];
  await assert.rejects(
    watching.outcomes([{ ...plan, mayContinue: false }, nobody], 100_000, ({ state }) => told.push(state)),
    /process events cannot be received/,
  );
  assert.deepEqual(told, ['replaced']);
});

test('the watch tells with what status a procedure ended its process', async () => {
  assert.deepEqual(await watch(await startSubject('exit')), { state: 'exited', detail: 'with status 7' });
});

test('the watch tells what signal killed a procedure', async () => {
  assert.deepEqual(await watch(await startSubject('fault')), { state: 'crashed', detail: 'by signal 4' });
});

test('the watch tells of another program in place of the old one', async () => {
  assert.deepEqual(await watch(await startSubject('exec')), { state: 'replaced', detail: undefined });
});

test('a procedure that overruns its time is left, and its thread goes on where it was', async () => {
  const subject = await startSubject('overrun');
  const staged = await stage(subject.pid);
  const captured = captureCrashProcedures(staged.kernel, staged.group);
  const applied = applyCrashProcedures(staged.group, captured, occasion);
  const watching = new ProcedureWatch();
  await staged.apply(applied.group);
  const [plan] = applied.plans;
  assert.ok(plan?.state === 'delivered' && plan.frame !== undefined);
  const outcomes = await watching.outcomes([plan], 300);
  watching.close();
  assert.deepEqual(outcomes, [{ pid: subject.pid, state: 'overran', detail: 'after 0.3 s' }]);
  forceContinue(subject.pid, plan.procedure, plan.frame);
  const { wrong, runs, state } = JSON.parse((await subject.lines.next()).value);
  assert.deepEqual({ wrong, runs, state }, { wrong: 0, runs: 1, state: 4 });
  assert.equal(await subject.exit, '0');
});

test('no event is lost while nobody looks, though many processes come and go', () => {
  const events = new ProcessEvents();
  const { pid } = spawnSync('sh', [
    '-c',
    'i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i + 1)); done; exit 7',
  ]);
  const seen = events.take();
  assert.equal(events.lost, false);
  assert.equal(seen.filter((event) => event.kind === 'exec').length >= 501, true);
  assert.deepEqual(
    seen.find((event) => event.pid === pid && event.kind === 'exit'),
    { kind: 'exit', pid, status: 7 << 8 },
  );
  events.close();
});
