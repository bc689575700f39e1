import { ContainerError, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { s64, struct, u32, u64 } from '../vmcore/view.ts';

/** `struct timekeeper` (include/linux/timekeeper_internal.h). Times in nanoseconds. */
const timekeeperStruct = struct('timekeeper', {
  shift: u32.at('tkr_mono.shift'),
  xtimeNsec: u64.at('tkr_mono.xtime_nsec'),
  base: s64.at('tkr_mono.base'),
  xtime_sec: u64,
  wallToMonotonicSec: s64.at('wall_to_monotonic.tv_sec'),
  wallToMonotonicNsec: s64.at('wall_to_monotonic.tv_nsec'),
  offs_real: s64,
  offs_boot: s64,
  offs_tai: s64,
});

/** The kernel's clocks in nanoseconds, at the last time that the timekeeper was updated: at most a tick before the end. */
export interface Clocks {
  readonly monotonic: bigint;
  readonly realtime: bigint;
  readonly boottime: bigint;
  readonly tai: bigint;
}

/** `tk_core` is a sequence counter followed by the timekeeper, which is aligned to 8 bytes. */
const TIMEKEEPER_OFFSET = 8n;
const SECOND = 1_000_000_000n;

/**
 * Reads the clocks. The base of CLOCK_MONOTONIC is kept twice (as nanoseconds and as wall time minus an offset). Where the two differ,
 * because the kernel died while it changed them or because they are damaged, the copy is read that the kernel prepares each
 * change in (`shadow_timekeeper`, up to 6.12). Throws a VmcoreError if neither is believable.
 */
export function readClocks(kernel: Kernel): Clocks {
  try {
    return clocksAt(kernel, kernel.symbol('tk_core') + TIMEKEEPER_OFFSET);
  } catch (error) {
    const shadow = kernel.symbolMaybe('shadow_timekeeper');
    if (!(error instanceof VmcoreError) || shadow === undefined) throw error;
    try {
      return clocksAt(kernel, shadow);
    } catch (second) {
      throw second instanceof VmcoreError ? error : second;
    }
  }
}

function clocksAt(kernel: Kernel, address: bigint): Clocks {
  const tk = kernel.bind(timekeeperStruct).at(address);
  const other = (tk.xtime_sec + tk.wallToMonotonicSec) * SECOND + tk.wallToMonotonicNsec;
  if (tk.base !== other || tk.base < 0n || tk.shift > 32) {
    throw new ContainerError(
      'timekeeper',
      address,
      `has a base of ${tk.base} ns, but by wall time ${other} ns`,
    );
  }
  const monotonic = tk.base + (tk.xtimeNsec >> BigInt(tk.shift));
  return {
    monotonic,
    realtime: monotonic + tk.offs_real,
    boottime: monotonic + tk.offs_boot,
    tai: monotonic + tk.offs_tai,
  };
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
