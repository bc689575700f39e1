import { constants } from 'node:os';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Credentials, IntervalTimer, PosixTimer, Process, Thread } from '../../model/process.ts';
import { textToBytes } from '../../system/byte-text.ts';
import type { ImageDirectory } from './image.ts';
import { SIGTRAP, signalNumber } from './plan/signals.ts';
import {
  CoreEntry_march,
  CoreEntrySchema,
  SeccompMode,
  type TaskCoreEntrySchema,
  type ThreadCoreEntrySchema,
} from './proto/gen/core_pb.ts';
import type { CredsEntrySchema } from './proto/gen/creds_pb.ts';
import type { SignalQueueEntrySchema } from './proto/gen/signal_pb.ts';
import type { ItimerEntrySchema, PosixTimerEntrySchema } from './proto/gen/timers_pb.ts';
import type { FilterIds } from './seccomp.ts';
import { x86ThreadInfo } from './x86.ts';

/** `task_state` (compel/include/uapi/task-state.h); a zombie is TASK_DEAD in an image. */
const taskStates = { alive: 1, zombie: 2, stopped: 3 } as const;
/** sigaltstack(2): none. */
const SS_DISABLE = 2;
/** The only flag of sigaltstack(2) that a program sets. */
const SS_AUTODISARM = 0x8000_0000;
const { SIGKILL, SIGSTOP } = constants.signals;
const SECOND_MICRO = 1_000_000;
const SECOND_NANO = 1_000_000_000n;

function capabilityWords(set: bigint): number[] {
  return [Number(set & 0xffff_ffffn), Number(set >> 32n)];
}

function credsEntry(credentials: Credentials): MessageInitShape<typeof CredsEntrySchema> {
  const { uid, gid, euid, egid, suid, sgid, fsuid, fsgid } = credentials;
  return {
    ...{ uid, gid, euid, egid, suid, sgid, fsuid, fsgid },
    capInh: capabilityWords(credentials.capInheritable),
    capPrm: capabilityWords(credentials.capPermitted),
    capEff: capabilityWords(credentials.capEffective),
    capBnd: capabilityWords(credentials.capBounding),
    capAmb: capabilityWords(credentials.capAmbient),
    secbits: credentials.securebits,
    groups: [...credentials.groups],
    noNewPrivs: credentials.noNewPrivs ? 1 : 0,
  };
}

/**
 * Pending signals but for SIGTRAP, which CRIU would take for its own breakpoint's: those come back later
 * (`held-signals.ts`).
 */
function queue(signals: readonly Uint8Array[]): MessageInitShape<typeof SignalQueueEntrySchema> {
  return {
    signals: signals.filter((siginfo) => signalNumber(siginfo) !== SIGTRAP).map((siginfo) => ({ siginfo })),
  };
}

/**
 * The interval of a timer as its image has it. The kernel keeps it, where CPU time is counted, of one that is
 * disarmed as well; CRIU takes 0 with an interval for a timer that has all of that left, and arms it
 * (decode_itimer and decode_posix_timer in criu/timer.c).
 */
function intervalOf<T extends bigint | number>(interval: T, remaining: T, none: T): T {
  return remaining === none ? none : interval;
}

function itimer({
  intervalMicroseconds: interval,
  remainingMicroseconds,
}: IntervalTimer): MessageInitShape<typeof ItimerEntrySchema> {
  const intervalMicroseconds = intervalOf(interval, remainingMicroseconds, 0);
  return {
    isec: BigInt(Math.floor(intervalMicroseconds / SECOND_MICRO)),
    iusec: BigInt(intervalMicroseconds % SECOND_MICRO),
    vsec: BigInt(Math.floor(remainingMicroseconds / SECOND_MICRO)),
    vusec: BigInt(remainingMicroseconds % SECOND_MICRO),
  };
}

function posixTimer(timer: PosixTimer): MessageInitShape<typeof PosixTimerEntrySchema> {
  const { remainingNanoseconds } = timer;
  const intervalNanoseconds = intervalOf(timer.intervalNanoseconds, remainingNanoseconds, 0n);
  return {
    itId: timer.id,
    // Clocks of CPU time are negative; the image has them without a sign.
    clockId: timer.clock >>> 0,
    siSigno: timer.signal,
    itSigevNotify: timer.notify,
    sivalPtr: timer.value,
    overrun: timer.overrun,
    isec: intervalNanoseconds / SECOND_NANO,
    insec: intervalNanoseconds % SECOND_NANO,
    vsec: remainingNanoseconds / SECOND_NANO,
    vnsec: remainingNanoseconds % SECOND_NANO,
    notifyThreadId: timer.notifyThread,
  };
}

/** Handlers of signals 1 to 64 without SIGKILL and SIGSTOP, which have none. */
function sigactionEntries(process: Process) {
  return process.sigactions.flatMap(({ handler, flags, restorer, mask }, i) =>
    i + 1 === SIGKILL || i + 1 === SIGSTOP ? [] : [{ sigaction: handler, flags, restorer, mask }],
  );
}

function taskCore(process: Process): MessageInitShape<typeof TaskCoreEntrySchema> {
  const { intervalTimers } = process;
  return {
    taskState: taskStates[process.state],
    exitCode: process.exitCode,
    personality: process.personality,
    flags: 0,
    blkSigset: process.threads[0]?.blockedSignals ?? 0n,
    comm: textToBytes(process.comm),
    timers: {
      real: itimer(intervalTimers.real),
      virt: itimer(intervalTimers.virtual),
      prof: itimer(intervalTimers.prof),
      posix: process.posixTimers.map(posixTimer),
    },
    rlimits: { rlimits: process.limits.map(({ soft, hard }) => ({ cur: soft, max: hard })) },
    signalsS: queue(process.sharedPendingSignals),
    loginuid: process.loginuid,
    oomScoreAdj: process.oomScoreAdj,
    sigactions: sigactionEntries(process),
    childSubreaper: process.childSubreaper,
    membarrierRegistrationMask:
      process.membarrierRegistrations === 0 ? undefined : process.membarrierRegistrations,
  };
}

function threadCore(thread: Thread, filters: FilterIds): MessageInitShape<typeof ThreadCoreEntrySchema> {
  const { altStack, robustList, rseq, seccomp } = thread;
  const hasStack = altStack.sizeBytes !== 0n;
  return {
    futexRla: robustList.head,
    futexRlaLen: robustList.sizeBytes,
    schedNice: thread.nice,
    schedPolicy: thread.policy,
    schedPrio: thread.rtPriority === 0 ? undefined : thread.rtPriority,
    blkSigset: thread.blockedSignals,
    sas: {
      ssSp: altStack.sp,
      ssSize: altStack.sizeBytes,
      ssFlags: hasStack ? (altStack.flags & SS_AUTODISARM) >>> 0 : SS_DISABLE,
    },
    pdeathSig: thread.parentDeathSignal === 0 ? undefined : thread.parentDeathSignal,
    signalsP: queue(thread.pendingSignals),
    creds: credsEntry(thread.credentials),
    ...(seccomp === undefined
      ? {}
      : { seccompMode: SeccompMode.filter, seccompFilter: filters.get(seccomp) ?? 0 }),
    comm: textToBytes(thread.comm),
    rseqEntry:
      rseq === undefined
        ? undefined
        : { rseqAbiPointer: rseq.pointer, rseqAbiSize: rseq.sizeBytes, signature: rseq.signature },
  };
}

/**
 * Writes `core-TID.img` of every thread of a process; the first thread's holds what belongs to the process.
 */
export function writeCores(images: ImageDirectory, process: Process, filters: FilterIds): void {
  if (process.threads.length === 0) {
    images
      .image('core', process.pid)
      .entry(CoreEntrySchema, { mtype: CoreEntry_march.X86_64, tc: taskCore(process) });
    return;
  }
  for (const thread of process.threads) {
    images.image('core', thread.tid).entry(CoreEntrySchema, {
      mtype: CoreEntry_march.X86_64,
      threadInfo: x86ThreadInfo(thread),
      tc: thread.tid === process.pid ? taskCore(process) : undefined,
      threadCore: threadCore(thread, filters),
    });
  }
}
