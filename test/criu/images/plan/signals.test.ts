import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SignalsPlan } from '../../../../src/criu/images/plan/restore-plan.ts';
import { signalsOf } from '../../../../src/criu/images/plan/signals.ts';
import type { Process } from '../../../../src/model/process.ts';
import { groupOf, processOf, threadOf } from '../../processes.ts';

const [SIGTRAP, SIGCHLD, SIGSTOP, SIGTSTP] = [5, 17, 19, 20];

function siginfo(signal: number): Uint8Array {
  const info = Buffer.alloc(128);
  info.writeInt32LE(signal, 0);
  return info;
}

const defaults = Array.from({ length: 64 }, () => ({ handler: 0n, flags: 0n, restorer: 0n, mask: 0n }));
const shell = processOf(100, { sigactions: defaults });

/** A job of the shell, in a process group of its own, stopped by ^Z; the shell has been told. */
function job(pid: number, over: Partial<Process> = {}): Process {
  return processOf(pid, {
    ...{ ppid: 100, sid: 100, state: 'stopped', stopSignal: SIGTSTP, stopNotice: 'taken' },
    sigactions: defaults,
    ...over,
  });
}

function planOf(pid: number, ...processes: Process[]): SignalsPlan {
  return signalsOf(groupOf(processes)).find((plan) => plan.pid === pid) ?? assert.fail();
}

const stopSignalOf = (over: Partial<Process>) => planOf(101, shell, job(101, over)).stopSignal;

describe('signals after the restore', () => {
  it('are those of children before those of their parents', () => {
    const plans = signalsOf(groupOf([shell, job(101), job(102)]));
    assert.deepEqual(
      plans.map(({ pid }) => pid),
      [102, 101, 100],
    );
  });

  it('have a stop that the parent knew of taken back, and another told once', () => {
    const plan = planOf(100, shell, job(101), job(102, { stopNotice: 'sent' }));
    assert.deepEqual(plan.stoppedChildren, [
      { pid: 101, isKnown: true },
      { pid: 102, isKnown: false },
    ]);
    assert.equal(plan.keepsChildSignal, false);
  });

  it('keep a SIGCHLD that is pending, or that was not sent yet', () => {
    const busy = { ...shell, sharedPendingSignals: [siginfo(SIGCHLD)] };
    assert.equal(planOf(100, busy, job(101)).keepsChildSignal, true);
    assert.equal(planOf(100, shell, job(101), job(102, { stopNotice: 'unsent' })).keepsChildSignal, true);
  });

  it('stop by SIGSTOP, which nothing can hinder, where nobody can tell the difference', () => {
    assert.equal(stopSignalOf({}), SIGSTOP);
    assert.equal(planOf(101, job(101, { stopNotice: 'sent' })).stopSignal, SIGSTOP);
    assert.equal(stopSignalOf({ state: 'alive', stopSignal: 0 }), undefined);
  });

  it('stop by the signal that the parent is still to hear of, unless that might not stop', () => {
    const stopNotice = 'sent';
    assert.equal(stopSignalOf({ stopNotice }), SIGTSTP);
    const handled = defaults.with(SIGTSTP - 1, { handler: 0x400000n, flags: 0n, restorer: 0n, mask: 0n });
    assert.equal(stopSignalOf({ stopNotice, sigactions: handled }), SIGSTOP);
    assert.equal(stopSignalOf({ stopNotice, pgid: 100 }), SIGSTOP);
    assert.equal(stopSignalOf({ stopNotice, sid: 101 }), SIGSTOP);
  });

  it('have every pending SIGTRAP, of the process and of its threads, and its handler', () => {
    const handled = defaults.with(SIGTRAP - 1, { handler: 1n, flags: 2n, restorer: 3n, mask: 1n << 63n });
    const process = processOf(100, {
      sigactions: handled,
      sharedPendingSignals: [siginfo(SIGCHLD), siginfo(SIGTRAP)],
      threads: [threadOf(100), threadOf(101, { pendingSignals: [siginfo(SIGTRAP)] })],
    });
    const encoded = Buffer.from(siginfo(SIGTRAP)).toString('base64');
    const { traps, trapAction } = planOf(100, process);
    assert.deepEqual(traps, [{ siginfo: encoded }, { tid: 101, siginfo: encoded }]);
    const mask = '0x8000000000000000';
    assert.deepEqual(trapAction, { handler: '0x1', flags: '0x2', restorer: '0x3', mask });
    assert.equal(planOf(100, shell).trapAction, undefined);
  });
});
