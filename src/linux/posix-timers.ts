import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, uint, type ViewOf } from '../vmcore/view.ts';
import { type HrtimerState, nextPeriod, readHrtimer } from './hrtimer.ts';
import { hlistForEach, listForEach } from './list.ts';
import type { Task } from './sched.ts';
import type { Signal } from './signal.ts';
import { sigqueueStruct } from './signal-types.ts';
import { CLOCK, type Clocks } from './timekeeping.ts';

/** `struct k_itimer` (include/linux/posix-timers.h): a timer made by timer_create(2). */
export const kItimer = struct('k_itimer', {
  list: addressOf(),
  // -6 and -2 for CLOCK_PROCESS_CPUTIME_ID and CLOCK_THREAD_CPUTIME_ID (PROCESS_CLOCK, THREAD_CLOCK).
  it_clock: s32,
  it_id: s32,
  it_overrun: s64,
  it_overrun_last: s64,
  it_sigev_notify: s32,
  it_interval: s64,
  it_pid: pointer,
  sigq: pointer,
  realTimer: addressOf('it.real.timer'),
  cpuExpires: s64.at('it.cpu.node.expires'),
  cpuPid: pointer.at('it.cpu.pid'),
  cpuHead: pointer.at('it.cpu.head'),
  // 6.13 made it a bool.
  cpuFiring: uint.at('it.cpu.firing'),
  alarmState: s32.at('it.alarm.alarmtimer.state'),
  alarmExpires: s64.at('it.alarm.alarmtimer.node.expires'),
});

type KItimer = ViewOf<typeof kItimer>;

/** Offsets in siginfo_t: si_signo, and si_value of a timer's signal. */
const SI_SIGNO = 0n;
const SI_VALUE = 24n;

const SIGEV_NONE = 1;
const SIGEV_THREAD_ID = 4;

/** CPUCLOCK_PERTHREAD_MASK of include/linux/posix-timers.h: CPU time of a thread, not of a process. */
const PER_THREAD = 4;

/** A POSIX timer as timer_gettime(2) would show it. */
export interface KernelPosixTimer {
  readonly id: number;
  /** As the kernel keeps it: negative for CPU time. */
  readonly clock: number;
  /**
   * Whose CPU time it counts: that of a single thread, or of a process, by its first thread. `task` is the
   * thread's number; undefined if none of the process is meant.
   */
  readonly cpuTimeOf: { readonly task: number | undefined; readonly isThread: boolean } | undefined;
  /** SIGEV_SIGNAL 0, SIGEV_NONE 1, SIGEV_THREAD 2, with SIGEV_THREAD_ID 4 added. */
  readonly notify: number;
  readonly signal: number;
  readonly value: bigint;
  /** Whom it notifies, if one thread alone: its number; `ended` if it is none of the process any more. */
  readonly thread: number | 'ended' | undefined;
  readonly overrun: number;
  readonly interval: bigint;
  readonly remaining: bigint;
  /**
   * It is set to a time of the wall clock: relative timers are in the queue of CLOCK_MONOTONIC
   * (hrtimer_init).
   */
  readonly isTimeOfDay: boolean;
}

/** CPU time of a process in nanoseconds, with that of threads that have ended. */
function cpuTimeOfProcess(signal: Signal, threads: readonly Task[]): bigint {
  return threads.reduce((sum, task) => sum + task.sum_exec_runtime, signal.sumSchedRuntime);
}

/**
 * What is left of a timer on CPU time (posix_cpu_timer_get). One that has gone off is set to 0, or, if it is
 * periodic, taken from its queue until its signal is taken: then its next period is meant. One whose time has
 * come and that is in the queue goes off at the next tick that its thread runs in, so that is still to come.
 * @param used by whom it counts
 */
export function cpuTimeLeft(
  { expires, interval, isQueued }: { expires: bigint; interval: bigint; isQueued: boolean },
  used: bigint,
): bigint {
  if (expires === 0n) return 0n;
  const left = expires - used;
  if (left > 0n) return left;
  return isQueued || interval === 0n ? 1n : nextPeriod(left, interval);
}

/**
 * The thread whose CPU time a timer counts, or the first one of the process. By its `struct pid`: that of a
 * thread which has ended stays with its timer, and its number may be another one's by now.
 */
function countedTask({ it_clock, cpuPid }: KItimer, threads: readonly Task[]): Task | undefined {
  const isThread = (it_clock & PER_THREAD) !== 0;
  return threads.find(({ thread_pid, pid, tgid }) => thread_pid === cpuPid && (isThread || pid === tgid));
}

/** Also by its `struct pid`. */
function notifiedThread(
  { it_sigev_notify, it_pid }: KItimer,
  threads: readonly Task[],
): KernelPosixTimer['thread'] {
  if ((it_sigev_notify & SIGEV_THREAD_ID) === 0) return undefined;
  return threads.find(({ thread_pid }) => thread_pid === it_pid)?.pid ?? 'ended';
}

/** What is left of a timer on CPU time; 0 if it counts none of the process. */
function leftOfCpuTime(
  timer: KItimer,
  signal: Signal,
  threads: readonly Task[],
  task: Task | undefined,
): bigint {
  if (task === undefined) return 0n;
  const isThread = (timer.it_clock & PER_THREAD) !== 0;
  const { cpuExpires: expires, it_interval: interval, cpuHead, cpuFiring } = timer;
  // While it is going off it is in no queue, and its signal is not in one yet.
  const isQueued = cpuHead !== 0n || cpuFiring !== 0;
  const used = isThread ? task.sum_exec_runtime : cpuTimeOfProcess(signal, threads);
  return cpuTimeLeft({ expires, interval, isQueued }, used);
}

/**
 * What timer_gettime(2) shows (common_timer_get): a periodic timer that has gone off is queued again only
 * when its signal is taken, and one without a signal (SIGEV_NONE) is never queued at all. Both go on from
 * period to period.
 */
export function timeLeft(
  timer: Pick<HrtimerState, 'active' | 'remaining' | 'left'>,
  notify: number,
  interval: bigint,
): bigint {
  if (timer.active) return timer.remaining;
  return interval > 0n || notify === SIGEV_NONE ? nextPeriod(timer.left, interval) : 0n;
}

/**
 * Timers of a process. 6.11 changed the list of a process's timers from a list to an hlist. Throws a
 * VmcoreError if the list is damaged.
 */
export function readPosixTimers(
  kernel: Kernel,
  signal: Signal,
  threads: readonly Task[],
  clocks: Clocks,
): KernelPosixTimer[] {
  const type = kernel.bind(kItimer);
  const isHlist = kernel.layouts.member('signal_struct', 'posix_timers')?.structName === 'hlist_head';
  const nodes = isHlist
    ? hlistForEach(kernel, signal.posix_timers)
    : listForEach(kernel, signal.posix_timers);
  return Array.from(nodes, (node) => {
    const timer = type.containerOf(node, 'list');
    const interval = timer.it_interval;
    const isCpu = timer.it_clock < 0;
    const isThread = (timer.it_clock & PER_THREAD) !== 0;
    const task = isCpu ? countedTask(timer, threads) : undefined;
    const cpuTimeOf = isCpu ? { task: task?.pid, isThread } : undefined;
    let remaining: bigint;
    let isTimeOfDay = false;
    if (cpuTimeOf !== undefined) {
      remaining = leftOfCpuTime(timer, signal, threads, task);
    } else {
      const state = readHrtimer(kernel, timer.realTimer, clocks);
      remaining = timeLeft(state, timer.it_sigev_notify, interval);
      isTimeOfDay = state.clock === CLOCK.realtime || state.clock === CLOCK.tai;
    }
    const info = timer.sigq === 0n ? undefined : kernel.bind(sigqueueStruct).at(timer.sigq).info;
    return {
      id: timer.it_id,
      clock: timer.it_clock,
      cpuTimeOf,
      notify: timer.it_sigev_notify,
      signal:
        info === undefined || timer.it_sigev_notify === SIGEV_NONE ? 0 : kernel.memory.s32(info + SI_SIGNO),
      value: info === undefined ? 0n : kernel.memory.u64(info + SI_VALUE),
      thread: notifiedThread(timer, threads),
      overrun: Number(timer.it_overrun_last > 0n ? timer.it_overrun_last : 0n),
      interval,
      remaining,
      isTimeOfDay: isTimeOfDay && remaining > 0n,
    };
  }).toSorted((a, b) => a.id - b.id);
}
