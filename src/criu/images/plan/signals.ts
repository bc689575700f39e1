import { constants } from 'node:os';
import type { ProcessGroup } from '../../../model/group.ts';
import type { Process } from '../../../model/process.ts';
import type { SignalsPlan } from './restore-plan.ts';

export const { SIGTRAP } = constants.signals;
const { SIGCHLD, SIGSTOP } = constants.signals;
const SIG_DFL = 0n;

/** `si_signo` of a siginfo_t. */
export function signalNumber(siginfo: Uint8Array): number {
  return Buffer.from(siginfo).readInt32LE(0);
}

function trapsOf({ sharedPendingSignals, threads }: Process): SignalsPlan['traps'] {
  const encoded = (signals: readonly Uint8Array[]): string[] =>
    signals
      .filter((info) => signalNumber(info) === SIGTRAP)
      .map((info) => Buffer.from(info).toString('base64'));
  return [
    ...encoded(sharedPendingSignals).map((siginfo) => ({ siginfo })),
    ...threads.flatMap(({ tid, pendingSignals }) =>
      encoded(pendingSignals).map((siginfo) => ({ tid, siginfo })),
    ),
  ];
}

function trapActionOf({ sigactions }: Process): SignalsPlan['trapAction'] {
  const action = sigactions[SIGTRAP - 1];
  if (action === undefined || (action.handler === SIG_DFL && action.flags === 0n)) return undefined;
  const { handler, flags, restorer, mask } = action;
  const hex = (value: bigint): string => `0x${value.toString(16)}`;
  return { handler: hex(handler), flags: hex(flags), restorer: hex(restorer), mask: hex(mask) };
}

/**
 * By which signal a process is stopped again. Others than SIGSTOP stop only who does not handle them and is
 * not in an orphaned process group (get_signal, kernel/signal.c), and which one it was is seen only by a
 * parent that was not told yet.
 */
function stopSignalOf(process: Process, parent: Process | undefined): number | undefined {
  const { state, stopSignal, stopNotice, sigactions, sid, pgid } = process;
  if (state !== 'stopped') return undefined;
  const isTold = parent === undefined || stopNotice === 'taken';
  const isDefault = sigactions[stopSignal - 1]?.handler === SIG_DFL;
  const isOrphaned = parent?.sid !== sid || parent.pgid === pgid;
  return isTold || !isDefault || isOrphaned ? SIGSTOP : stopSignal;
}

/** What is to be done to the signals of a group's processes; children before their parents. */
export function signalsOf({ processes }: ProcessGroup): SignalsPlan[] {
  const living = processes.filter(({ state }) => state !== 'zombie');
  const byPid = new Map(living.map((process) => [process.pid, process]));
  return living.toReversed().map((process) => {
    const children = living.filter(({ ppid, state }) => ppid === process.pid && state === 'stopped');
    const isPending = process.sharedPendingSignals.some((info) => signalNumber(info) === SIGCHLD);
    return {
      pid: process.pid,
      traps: trapsOf(process),
      trapAction: trapActionOf(process),
      stoppedChildren: children.map(({ pid, stopNotice }) => ({ pid, isKnown: stopNotice === 'taken' })),
      keepsChildSignal: isPending || children.some(({ stopNotice }) => stopNotice === 'unsent'),
      stopSignal: stopSignalOf(process, byPid.get(process.ppid)),
    };
  });
}
