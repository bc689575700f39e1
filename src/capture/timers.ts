import { type HrtimerState, nextPeriod, readHrtimer } from '../linux/hrtimer.ts';
import { type KernelPosixTimer, readPosixTimers } from '../linux/posix-timers.ts';
import { coarseness } from '../linux/readers/clocks.ts';
import type { Task } from '../linux/sched.ts';
import type { Signal } from '../linux/signal.ts';
import { CLOCK, type Clocks } from '../linux/timekeeping.ts';
import type { IntervalTimer, PosixTimer, Process } from '../model/process.ts';
import type { Repair } from '../model/verdict.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { isRingWorker } from './rings.ts';

/** Nanoseconds to microseconds, rounded up: an armed timer stays armed. */
function microseconds(nanoseconds: bigint): number {
  return Number((nanoseconds + 999n) / 1000n);
}

/** ITIMER_VIRTUAL and ITIMER_PROF count CPU time of the whole process, its ended threads included. */
function cpuTimer(expires: bigint, interval: bigint, used: bigint): IntervalTimer {
  const left = expires === 0n ? 0n : expires > used ? expires - used : 1n;
  return { intervalMicroseconds: microseconds(interval), remainingMicroseconds: microseconds(left) };
}

/**
 * ITIMER_REAL is queued again only when its SIGALRM is taken (dequeue_signal, kernel/signal.c); until then
 * its next period is this.
 */
export function realTimeLeft(
  { active, remaining, left }: Pick<HrtimerState, 'active' | 'remaining' | 'left'>,
  interval: bigint,
): bigint {
  return active || interval === 0n ? remaining : nextPeriod(left, interval);
}

/** The three interval timers of setitimer(2). */
export function captureIntervalTimers(
  kernel: Kernel,
  signal: Signal,
  threads: readonly Task[],
  clocks: Clocks,
): Process['intervalTimers'] {
  const real = readHrtimer(kernel, signal.real_timer, clocks);
  const user = threads.reduce((sum, task) => sum + task.utime, signal.utime);
  const total = threads.reduce((sum, task) => sum + task.stime, user + signal.stime);
  return {
    real: {
      intervalMicroseconds: microseconds(signal.it_real_incr),
      remainingMicroseconds: microseconds(realTimeLeft(real, signal.it_real_incr)),
    },
    virtual: cpuTimer(signal.virtExpires, signal.virtInterval, user),
    prof: cpuTimer(signal.profExpires, signal.profInterval, total),
  };
}

/** Clocks on which CRIU's own timer_create gives the same timer. */
const restorableClocks: ReadonlySet<number> = new Set([
  CLOCK.realtime,
  CLOCK.monotonic,
  CLOCK.boottime,
  CLOCK.tai,
]);
/** Of a clock of CPU time: which one, and whether it is a thread's (include/linux/posix-timers.h). */
const [CPUCLOCK_MASK, CPUCLOCK_SCHED, CPUCLOCK_PER_THREAD] = [3, 2, 4];

/** The thread whose CPU time a clock id counts; undefined if it is another clock. */
export function threadOfClock(clock: number): number | undefined {
  return clock < 0 && (clock & CPUCLOCK_PER_THREAD) !== 0 ? ~(clock >> 3) : undefined;
}

/**
 * The clock on which CRIU has to make a timer. It makes them all in the first thread, when the others are
 * there (create_posix_timers in criu/pie/restorer.c): the CPU time of a thread is named by its number.
 * @returns undefined if none is the same
 */
export function restorableClock({
  clock,
  cpuTimeOf,
}: Pick<KernelPosixTimer, 'clock' | 'cpuTimeOf'>): number | undefined {
  if (cpuTimeOf === undefined) return restorableClocks.has(clock) ? clock : undefined;
  if ((clock & CPUCLOCK_MASK) !== CPUCLOCK_SCHED) return undefined;
  const { task, isThread } = cpuTimeOf;
  if (task === undefined) return undefined;
  return isThread ? (~task << 3) | CPUCLOCK_PER_THREAD | CPUCLOCK_SCHED : CLOCK.processCputime;
}

function lateTimer(id: number): string {
  return `its timer ${id} (timer_create), set to a time of day, goes off later by as long as the system was away`;
}

/**
 * POSIX timers, and reasons why one of them cannot be restored.
 *
 * @param threads all of them: the CPU time of a process is that of its workers too
 */
export function capturePosixTimers(
  kernel: Kernel,
  signal: Signal,
  threads: readonly Task[],
  clocks: Clocks,
): { timers: PosixTimer[]; problems: string[]; notes: string[] } {
  const problems: string[] = [];
  const notes: string[] = [];
  const timers = readPosixTimers(kernel, signal, threads, clocks).map((timer): PosixTimer => {
    const clock = restorableClock(timer);
    if (clock === undefined) problems.push(`has a timer on clock ${timer.clock}`);
    if (timer.thread === 'ended') problems.push('has a timer that notifies a thread which has ended');
    if (timer.isTimeOfDay) notes.push(lateTimer(timer.id));
    return {
      id: timer.id,
      clock: clock ?? timer.clock,
      notify: timer.notify,
      signal: timer.signal,
      value: timer.value,
      notifyThread: timer.thread === 'ended' ? undefined : timer.thread,
      overrun: timer.overrun,
      intervalNanoseconds: timer.interval,
      remainingNanoseconds: timer.remaining,
    };
  });
  return { timers, problems, notes };
}

/**
 * Timers that count the CPU time of a worker of a ring, or notify one: it has a number, by which CRIU would
 * have to name it, and is not brought back. Others take its place.
 */
function workerProblems(threads: readonly Task[], timers: readonly PosixTimer[]): string[] {
  const workers = new Set<number | undefined>(threads.filter(isRingWorker).map(({ pid }) => pid));
  const isOfOne = ({ clock, notifyThread }: PosixTimer): boolean =>
    workers.has(threadOfClock(clock)) || workers.has(notifyThread);
  return timers.some(isOfOne) ? ['has a timer for a worker of an io_uring'] : [];
}

/** Timers that count down on a clock which is known too badly; CPU time is no such clock. */
function clockProblems(
  clocks: Clocks,
  { real }: Process['intervalTimers'],
  timers: readonly PosixTimer[],
): string[] {
  const coarse = coarseness(clocks);
  if (coarse === undefined) return [];
  const isSet = ({ clock, remainingNanoseconds }: PosixTimer): boolean =>
    remainingNanoseconds > 0n && clock !== CLOCK.processCputime && clock >= 0;
  return real.remainingMicroseconds > 0 || timers.some(isSet)
    ? [`has a timer that is set, and ${coarse}`]
    : [];
}

/** Why timers that are kept cannot be had again, by what else is known of their process. */
export function timerProblems(
  clocks: Clocks,
  threads: readonly Task[],
  { intervalTimers, posixTimers }: Pick<Process, 'intervalTimers' | 'posixTimers'>,
): string[] {
  return [...workerProblems(threads, posixTimers), ...clockProblems(clocks, intervalTimers, posixTimers)];
}

/** What was believed instead of the timekeeper, for every process: all see the clocks. */
export function clockRepairs({ estimate }: Clocks): Repair[] {
  if (estimate === undefined) return [];
  const seconds = Number(estimate.accuracyNanoseconds) / 1e9;
  return [{ what: 'clocks', used: `${estimate.used}, to about ${seconds.toFixed(1)} s`, instead: 'tk_core' }];
}
