import { constants } from 'node:os';
import { z } from 'zod';
import type { ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';

export const { SIGTRAP } = constants.signals;
const { SIGCHLD, SIGSTOP } = constants.signals;
const SIG_DFL = 0n;

/** A 64-bit number, of which a part may not fit into JSON's. */
const word = z.string().regex(/^0x[0-9a-f]+$/);

/** Signals of a process that are to be put right when CRIU is done with it. */
export const signalsSchema = z.strictObject({
  pid: z.int(),
  /** SIGTRAPs that are pending, for the process or for one thread; siginfo_t in base64. */
  traps: z.array(z.strictObject({ tid: z.int().optional(), siginfo: z.base64() })),
  /** What the process does with SIGTRAP, unless that is the default. */
  trapAction: z.strictObject({ handler: word, flags: word, restorer: word, mask: word }).optional(),
  /** Children that are stopped; `isKnown`: wait(2) has told so. */
  stoppedChildren: z.array(z.strictObject({ pid: z.int(), isKnown: z.boolean() })),
  /** SIGCHLD is pending, or is to be: nothing that a stopped child sends may be taken away. */
  keepsChildSignal: z.boolean(),
  /** The process is to be stopped, and seems to have been by this signal. */
  stopSignal: z.int().optional(),
});

export type SignalsPlan = z.infer<typeof signalsSchema>;

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
 * By which signal a process is stopped again. Others than SIGSTOP stop only who does not handle them and is not in an orphaned process group
 * (get_signal, kernel/signal.c), and which one it was is seen only by a parent that was not told yet.
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
