import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, u8 } from '../vmcore/view.ts';
import { type Clocks, clockReading } from './timekeeping.ts';

/** `struct hrtimer` (include/linux/hrtimer.h); `expires` is absolute on the clock of its base. */
export const hrtimerStruct = struct('hrtimer', {
  expires: s64.at('node.expires'),
  function: pointer,
  base: pointer,
  state: u8,
});

/** `struct hrtimer_sleeper`: on the stack of a task that sleeps until a time at most. */
export const hrtimerSleeperStruct = struct('hrtimer_sleeper', {
  node: addressOf('timer.node.node'),
  softExpires: s64.at('timer._softexpires'),
  function: pointer.at('timer.function'),
  /** The queue that the timer is on, whose clock it runs on. */
  base: pointer.at('timer.base'),
  state: u8.at('timer.state'),
  task: pointer,
});

/** `struct hrtimer_cpu_base`: the queues of one CPU. */
export const hrtimerCpuBaseStruct = struct('hrtimer_cpu_base', { clock_base: addressOf() });

/** `struct hrtimer_clock_base`: the queue of one clock, which is `offset` ahead of CLOCK_MONOTONIC. */
export const hrtimerClockBaseStruct = struct('hrtimer_clock_base', {
  clockid: s32,
  offset: s64,
  active: addressOf('active.rb_root'),
});

/** HRTIMER_MAX_CLOCK_BASES: four clocks, each for hard and for soft interrupts. */
export const HRTIMER_MAX_CLOCK_BASES = 8;

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
  const clock = kernel.bind(hrtimerClockBaseStruct).at(timer.base).clockid;
  const left = timer.expires - (clockReading(clocks, clock) ?? clocks.monotonic);
  const remaining = !active ? 0n : left > 0n ? left : 1n;
  return { active, clock, expires: timer.expires, remaining, left };
}
