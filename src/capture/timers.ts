import { type HrtimerState, nextPeriod, readHrtimer } from '../linux/hrtimer.ts';
import { readPosixTimers } from '../linux/posix-timers.ts';
import { coarseness } from '../linux/readers/clocks.ts';
import type { Task } from '../linux/sched.ts';
import type { Signal } from '../linux/signal.ts';
import { CLOCK, type Clocks } from '../linux/timekeeping.ts';
import type { IntervalTimer, PosixTimer, Process } from '../model/process.ts';
import type { Repair } from '../model/verdict.ts';
import type { Kernel } from '../vmcore/kernel.ts';

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

/** Clocks on which CRIU's own timer_create gives the same timer; CPU clocks of others are not among them. */
const restorableClocks: ReadonlySet<number> = new Set([
  CLOCK.realtime,
  CLOCK.monotonic,
  CLOCK.processCputime,
  CLOCK.threadCputime,
  CLOCK.boottime,
  CLOCK.tai,
]);
/** `clock_getcpuclockid(0)`, as the kernel keeps CLOCK_PROCESS_CPUTIME_ID: ~0 << 3 | CPUCLOCK_SCHED. */
const OWN_PROCESS_CPU_CLOCK = -6;

function lateTimer(id: number): string {
  return `its timer ${id} (timer_create), set to a time of day, goes off later by as long as the system was away`;
}

/** POSIX timers, and reasons why one of them cannot be restored. */
export function capturePosixTimers(
  kernel: Kernel,
  signal: Signal,
  threads: readonly Task[],
  clocks: Clocks,
): { timers: PosixTimer[]; problems: string[]; notes: string[] } {
  const problems: string[] = [];
  const notes: string[] = [];
  const timers = readPosixTimers(kernel, signal, threads, clocks).map((timer): PosixTimer => {
    const clock = timer.clock === OWN_PROCESS_CPU_CLOCK ? CLOCK.processCputime : timer.clock;
    if (!restorableClocks.has(clock)) problems.push(`has a timer on clock ${timer.clock}`);
    if (timer.isTimeOfDay) notes.push(lateTimer(timer.id));
    return {
      id: timer.id,
      clock,
      notify: timer.notify,
      signal: timer.signal,
      value: timer.value,
      notifyThread: timer.thread,
      overrun: timer.overrun,
      intervalNanoseconds: timer.interval,
      remainingNanoseconds: timer.remaining,
    };
  });
  return { timers, problems, notes };
}

/** Timers that count down on a clock which is known too badly; CPU time is no such clock. */
export function clockProblems(
  clocks: Clocks,
  { real }: Process['intervalTimers'],
  timers: readonly PosixTimer[],
): string[] {
  const coarse = coarseness(clocks);
  if (coarse === undefined) return [];
  const isSet = ({ clock, remainingNanoseconds }: PosixTimer): boolean =>
    remainingNanoseconds > 0n && clock !== CLOCK.processCputime && clock !== CLOCK.threadCputime;
  return real.remainingMicroseconds > 0 || timers.some(isSet)
    ? [`has a timer that is set, and ${coarse}`]
    : [];
}

/** What was believed instead of the timekeeper, for every process: all see the clocks. */
export function clockRepairs({ estimate }: Clocks): Repair[] {
  if (estimate === undefined) return [];
  const seconds = Number(estimate.accuracyNanoseconds) / 1e9;
  return [{ what: 'clocks', used: `${estimate.used}, to about ${seconds.toFixed(1)} s`, instead: 'tk_core' }];
}
