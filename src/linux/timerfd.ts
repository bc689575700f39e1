import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, s32, s64, struct, u8, u16, u64 } from '../vmcore/view.ts';
import { hrtimerClockBaseStruct } from './hrtimer.ts';
import { CLOCK, type Clocks, clockReading } from './timekeeping.ts';

/** `struct timerfd_ctx` (fs/timerfd.c): a high-resolution timer, or an alarm timer for the *_ALARM clocks. */
export const timerfdContext = struct('timerfd_ctx', {
  tintv: s64,
  ticks: u64,
  clockid: s32,
  expired: u16,
  settime_flags: u16,
  timerExpires: s64.at('t.tmr.node.expires'),
  timerState: u8.at('t.tmr.state'),
  timerBase: pointer.at('t.tmr.base'),
  alarmExpires: s64.at('t.alarm.node.expires'),
  alarmState: s32.at('t.alarm.state'),
  alarmTimerBase: pointer.at('t.alarm.timer.base'),
});

/** The clocks whose timers wake a sleeping machine. */
export function isAlarmClock(clock: number): boolean {
  return clock === CLOCK.realtimeAlarm || clock === CLOCK.boottimeAlarm;
}

/** HRTIMER_STATE_ENQUEUED and ALARMTIMER_STATE_ENQUEUED. */
const ENQUEUED = 1;

/** TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET of timerfd_settime(2). */
export const timerfdFlags = { absolute: 1, cancelOnSet: 2 } as const;

/** A timerfd as the kernel keeps it. Times in nanoseconds. */
export interface TimerFdContext {
  readonly clock: number;
  readonly interval: bigint;
  readonly ticks: bigint;
  readonly settimeFlags: number;
  /** It has gone off since it was set or read. */
  readonly hasExpired: boolean;
  readonly isQueued: boolean;
  /** On the clock of the queue that it is, or was, in. */
  readonly expires: bigint;
  /** What that clock shows. */
  readonly now: bigint;
}

export interface TimerFdState {
  readonly clock: number;
  readonly intervalNanoseconds: bigint;
  /** Expirations that were not read, those counted that the kernel would have added at the next read. */
  readonly ticks: bigint;
  readonly settimeFlags: number;
  /** 0n if not armed, otherwise at least 1n. */
  readonly remainingNanoseconds: bigint;
}

/** The timerfd behind `file->private_data`. Throws a VmcoreError if it cannot be read. */
export function readTimerfd(kernel: Kernel, context: bigint, clocks: Clocks): TimerFdContext {
  const timer = kernel.bind(timerfdContext).at(context);
  const alarm = isAlarmClock(timer.clockid);
  const base = alarm ? timer.alarmTimerBase : timer.timerBase;
  const baseClock = base === 0n ? CLOCK.monotonic : kernel.bind(hrtimerClockBaseStruct).at(base).clockid;
  return {
    clock: timer.clockid,
    interval: timer.tintv,
    ticks: timer.ticks,
    settimeFlags: timer.settime_flags,
    hasExpired: timer.expired !== 0,
    isQueued: ((alarm ? timer.alarmState : timer.timerState) & ENQUEUED) !== 0,
    expires: alarm ? timer.alarmExpires : timer.timerExpires,
    now: clockReading(clocks, baseClock) ?? clocks.monotonic,
  };
}

/** A periodic timer that has gone off is not queued again before it is read (timerfd_read). */
export function waitsForRead({ hasExpired, interval }: TimerFdContext): boolean {
  return hasExpired && interval > 0n;
}

/**
 * The state of a timerfd; a periodic one that waits to be read is moved forward as do_timerfd_gettime does.
 */
export function timerfdState(timer: TimerFdContext): TimerFdState {
  const { interval } = timer;
  let { ticks } = timer;
  let remaining = 0n;
  if (timer.isQueued || waitsForRead(timer)) {
    remaining = timer.expires - timer.now;
    if (remaining <= 0n && waitsForRead(timer)) {
      const periods = -remaining / interval + 1n;
      ticks += periods - 1n;
      remaining += periods * interval;
    }
    // A timer whose time has come but whose interrupt has not: it expires as soon as it is armed again.
    if (remaining <= 0n) remaining = 1n;
  }
  return {
    clock: timer.clock,
    intervalNanoseconds: interval,
    ticks,
    settimeFlags: timer.settimeFlags,
    remainingNanoseconds: remaining,
  };
}
