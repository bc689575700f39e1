import { s32, s64, struct, u32, u64 } from '../vmcore/view.ts';

/** `struct timekeeper` (include/linux/timekeeper_internal.h). Times in nanoseconds. */
export const timekeeperStruct = struct('timekeeper', {
  shift: u32.at('tkr_mono.shift'),
  xtimeNsec: u64.at('tkr_mono.xtime_nsec'),
  base: s64.at('tkr_mono.base'),
  xtime_sec: u64,
  wallToMonotonicSec: s64.at('wall_to_monotonic.tv_sec'),
  wallToMonotonicNsec: s64.at('wall_to_monotonic.tv_nsec'),
  offs_real: s64,
  offs_boot: s64,
  offs_tai: s64,
  tai_offset: s32,
  monotonicToBootSec: s64.at('monotonic_to_boot.tv_sec'),
  monotonicToBootNsec: s64.at('monotonic_to_boot.tv_nsec'),
});

/**
 * The kernel's clocks in nanoseconds, at the last time that the timekeeper was updated: at most a tick before
 * the end.
 */
export interface Clocks {
  readonly monotonic: bigint;
  readonly realtime: bigint;
  readonly boottime: bigint;
  readonly tai: bigint;
  /** Set where the timekeeper could not be believed. */
  readonly estimate?: ClockEstimate;
}

/**
 * Where clocks come from that are not the timekeeper's own. CLOCK_MONOTONIC is at most so far ahead, and
 * never behind.
 */
export interface ClockEstimate {
  readonly used: string;
  readonly accuracyNanoseconds: bigint;
}

/** Clock ids of clock_gettime(2). */
export const CLOCK = {
  realtime: 0,
  monotonic: 1,
  processCputime: 2,
  threadCputime: 3,
  monotonicRaw: 4,
  boottime: 7,
  realtimeAlarm: 8,
  boottimeAlarm: 9,
  tai: 11,
} as const;

/** What an hrtimer on the given clock is compared with; undefined for a clock that hrtimers do not run on. */
export function clockReading(clocks: Clocks, clock: number): bigint | undefined {
  switch (clock) {
    case CLOCK.realtime:
    case CLOCK.realtimeAlarm:
      return clocks.realtime;
    case CLOCK.monotonic:
      return clocks.monotonic;
    case CLOCK.boottime:
    case CLOCK.boottimeAlarm:
      return clocks.boottime;
    case CLOCK.tai:
      return clocks.tai;
    default:
      return undefined;
  }
}
