import { readdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoText } from '../../system/errno.ts';
import { WNOHANG } from '../../system/ptrace.ts';
import { messageOf } from '../../system/thrown.ts';
import type { SignalsPlan } from '../images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import { type Tracee, TraceeError } from './tracee.ts';

const SYS = { rtSigaction: 13, rtSigqueueinfo: 129, waitid: 247, rtTgsigqueueinfo: 297 } as const;
const P_PID = 1;
const WSTOPPED = 2;
const SIGSET_BYTES = 8;
const POLL_MILLISECONDS = 2;
const LIMIT_MILLISECONDS = 10_000;
const { SIGTRAP, SIGCHLD } = constants.signals;
/** `si_code` of a child that has stopped, and the offsets of it and of the child's number in siginfo_t. */
const CLD_STOPPED = 5;
const [SI_CODE, SI_PID] = [8, 16];

function restoreTraps(tracee: Tracee, { traps }: SignalsPlan): string[] {
  return traps.flatMap(({ tid, siginfo }) => {
    const result = tracee.withBytes(Buffer.from(siginfo, 'base64'), (address) =>
      tid === undefined
        ? tracee.call(tracee.pid, SYS.rtSigqueueinfo, tracee.pid, SIGTRAP, address)
        : tracee.call(tid, SYS.rtTgsigqueueinfo, tracee.pid, tid, SIGTRAP, address),
    );
    return result === 0 ? [] : [`process ${tracee.pid} has lost a pending SIGTRAP (${errnoText(-result)})`];
  });
}

/**
 * Whether a process handles or ignores SIGTRAP; CRIU up to 3.17 has the kernel forget it where it sets a
 * breakpoint.
 */
function hasTrapAction(pid: number): boolean {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return [...status.matchAll(/^Sig(?:Ign|Cgt):\s*([0-9a-f]+)$/gm)].some(
    ([, mask = '']) => (BigInt(`0x${mask}`) & (1n << BigInt(SIGTRAP - 1))) !== 0n,
  );
}

function restoreTrapAction(tracee: Tracee, { trapAction }: SignalsPlan): string[] {
  if (trapAction === undefined) return [];
  const bytes = Buffer.alloc(32);
  const { handler, flags, restorer, mask } = trapAction;
  for (const [i, word] of [handler, flags, restorer, mask].entries())
    bytes.writeBigUInt64LE(BigInt(word), i * 8);
  const result = tracee.withBytes(bytes, (address) =>
    tracee.call(tracee.pid, SYS.rtSigaction, SIGTRAP, address, 0, SIGSET_BYTES),
  );
  return result === 0
    ? []
    : [`process ${tracee.pid} has lost its handler of SIGTRAP (${errnoText(-result)})`];
}

/**
 * Children that have stopped once more: the parent knew of those that it had waited for, and had its SIGCHLD
 * of them all. Waiting again takes the news of one away, and the signal is dropped if it is for one of these.
 */
function forgetStops(tracee: Tracee, { stoppedChildren, keepsChildSignal }: SignalsPlan): void {
  for (const { pid, isKnown } of stoppedChildren) {
    if (isKnown) tracee.call(tracee.pid, SYS.waitid, P_PID, pid, 0, WSTOPPED | WNOHANG, 0);
  }
  if (keepsChildSignal) return;
  const isNews = (info: Buffer): boolean =>
    info.readInt32LE(0) === SIGCHLD &&
    info.readInt32LE(SI_CODE) === CLD_STOPPED &&
    stoppedChildren.some(({ pid }) => pid === info.readInt32LE(SI_PID));
  const ofThread = tracee.pending(tracee.pid).some((info) => info.readInt32LE(0) === SIGCHLD);
  if (!ofThread && tracee.pending().some(isNews)) tracee.drop(SIGCHLD);
}

/** Throws if the process is not as it was held, or not frozen again. */
async function restoreProcess(signals: SignalsPlan, freezer: Freezer): Promise<string[]> {
  const notes = whileHeld(signals.pid, freezer, (tracee) => restoreIn(tracee, signals));
  // What stops tells its parent when it is stopped already, and is at rest only afterwards.
  if (signals.stopSignal !== undefined) await untilStopped(signals.pid);
  await freezer.frozen();
  return notes;
}

function restoreIn(tracee: Tracee, signals: SignalsPlan): string[] {
  forgetStops(tracee, signals);
  const notes = [...restoreTrapAction(tracee, signals), ...restoreTraps(tracee, signals)];
  if (signals.stopSignal !== undefined) tracee.stop(signals.stopSignal);
  return notes;
}

async function untilStopped(pid: number): Promise<void> {
  const start = performance.now();
  const isStopped = (tid: string): boolean =>
    /^State:\tT \(stopped\)$/m.test(readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1'));
  while (!readdirSync(`/proc/${pid}/task`).every(isStopped)) {
    if (performance.now() - start > LIMIT_MILLISECONDS) throw new TraceeError(`process ${pid} does not stop`);
    await sleep(POLL_MILLISECONDS);
  }
}

/** Whether anything is to be done. */
function isChanged(signals: SignalsPlan): boolean {
  const { pid, traps, trapAction, stoppedChildren, stopSignal } = signals;
  if (traps.length > 0 || stoppedChildren.length > 0 || stopSignal !== undefined) return true;
  return trapAction !== undefined && !hasTrapAction(pid);
}

/**
 * Does to frozen processes what only they themselves can do: pending SIGTRAPs and the handler for them, which
 * CRIU uses up, are put back; what was stopped is stopped, and its parent learns of it only what it had not
 * yet learnt. Returns a sentence for each thing that could not be done. Throws an Error if a process got out
 * of hand on the way: it may have its signals blocked, be in the middle of a call, or run.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreSignals(plan: readonly SignalsPlan[], freezer: Freezer): Promise<string[]> {
  const notes: string[] = [];
  for (const signals of plan) {
    if (!isChanged(signals)) continue;
    try {
      notes.push(...(await restoreProcess(signals, freezer)));
    } catch (error) {
      throw new Error(
        `the signals of process ${signals.pid} cannot be made what they were: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
  return notes;
}
