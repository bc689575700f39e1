import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, s32, s64, struct, u8 } from '../vmcore/view.ts';
import { type Clocks, clockReading } from './timekeeping.ts';

/** `struct hrtimer`; `expires` is absolute on the clock of its base. */
const hrtimerStruct = struct('hrtimer', {
  expires: s64.at('node.expires'),
  function: pointer,
  base: pointer,
  state: u8,
});

const clockBase = struct('hrtimer_clock_base', { clockid: s32 });

/** HRTIMER_STATE_ENQUEUED (include/linux/hrtimer.h). */
export const HRTIMER_ENQUEUED = 1;

/** When a sleep ends at the latest: absolute, in nanoseconds of a clock. */
export interface Deadline {
  readonly clock: number;
  readonly expires: bigint;
}

export interface HrtimerState {
  readonly active: boolean;
  /** Clock id of the timer's base. */
  readonly clock: number;
  /** Absolute expiry in nanoseconds of that clock. */
  readonly expires: bigint;
  /** Nanoseconds until it goes off; at least 1 for an active timer that should have gone off already. */
  readonly remaining: bigint;
  /** The same for a timer that is not active: 0 or less if its time has come. */
  readonly left: bigint;
}

/** Nanoseconds to the next period of a timer that went off `-left` ago (hrtimer_forward). */
export function nextPeriod(left: bigint, interval: bigint): bigint {
  if (left > 0n || interval <= 0n) return left > 0n ? left : 0n;
  return interval - (-left % interval);
}

/** State of the hrtimer at `address`. `remaining` is 0 for a timer that is not active. */
export function readHrtimer(kernel: Kernel, address: bigint, clocks: Clocks): HrtimerState {
  const timer = kernel.bind(hrtimerStruct).at(address);
  const active = (timer.state & HRTIMER_ENQUEUED) !== 0;
  if (timer.base === 0n) return { active: false, clock: 0, expires: 0n, remaining: 0n, left: 0n };
  const clock = kernel.bind(clockBase).at(timer.base).clockid;
  const left = timer.expires - (clockReading(clocks, clock) ?? clocks.monotonic);
  const remaining = !active ? 0n : left > 0n ? left : 1n;
  return { active, clock, expires: timer.expires, remaining, left };
}
