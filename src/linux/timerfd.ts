import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, s32, s64, struct, u8, u16, u64 } from '../vmcore/view.ts';
import { type Clocks, clockReading } from './timekeeping.ts';

/** `struct timerfd_ctx` (fs/timerfd.c): a high-resolution timer, or an alarm timer for the *_ALARM clocks. */
const timerfdContext = struct('timerfd_ctx', {
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

const hrtimerClockBase = struct('hrtimer_clock_base', { clockid: s32 });

/** CLOCK_REALTIME_ALARM and CLOCK_BOOTTIME_ALARM (include/uapi/linux/time.h). */
const alarmClocks: ReadonlySet<number> = new Set([8, 9]);
/** HRTIMER_STATE_ENQUEUED and ALARMTIMER_STATE_ENQUEUED. */
const ENQUEUED = 1;

/** TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET of timerfd_settime(2). */
export const timerfdFlags = { absolute: 1, cancelOnSet: 2 } as const;

export interface TimerFdState {
  readonly clock: number;
  readonly intervalNanoseconds: bigint;
  /** Expirations that were not read, those counted that the kernel would have added at the next read. */
  readonly ticks: bigint;
  readonly settimeFlags: number;
  /** 0n if not armed, otherwise at least 1n. */
  readonly remainingNanoseconds: bigint;
}

/**
 * The state of a timerfd at the time of `clocks`. A periodic timer that has expired is
 * not queued again before it is read: it is moved forward here as do_timerfd_gettime does. Throws a VmcoreError if the
 * context cannot be read.
 */
export function timerfdState(kernel: Kernel, context: bigint, clocks: Clocks): TimerFdState {
  const timer = kernel.bind(timerfdContext).at(context);
  const alarm = alarmClocks.has(timer.clockid);
  const expires = alarm ? timer.alarmExpires : timer.timerExpires;
  const queued = ((alarm ? timer.alarmState : timer.timerState) & ENQUEUED) !== 0;
  const base = alarm ? timer.alarmTimerBase : timer.timerBase;
  const interval = timer.tintv;
  let ticks = timer.ticks;
  let remaining = 0n;
  const waitsForRead = timer.expired !== 0 && interval > 0n;
  if (queued || waitsForRead) {
    const clock = kernel.bind(hrtimerClockBase).at(base).clockid;
    remaining = expires - (clockReading(clocks, clock) ?? clocks.monotonic);
    if (remaining <= 0n && waitsForRead) {
      const periods = -remaining / interval + 1n;
      ticks += periods - 1n;
      remaining += periods * interval;
    }
    // A timer whose time has come but whose interrupt has not: it expires as soon as it is armed again.
    if (remaining <= 0n) remaining = 1n;
  }
  return {
    clock: timer.clockid,
    intervalNanoseconds: interval,
    ticks,
    settimeFlags: timer.settime_flags,
    remainingNanoseconds: remaining,
  };
}
