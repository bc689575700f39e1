import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** The values that CONFIG_HZ can have on x86 (kernel/Kconfig.hz). */
const frequencies = [250, 1000, 100, 300] as const;

/** jiffies start 300 seconds before they wrap 32 bits (include/linux/jiffies.h, INITIAL_JIFFIES). */
const INITIAL_SECONDS = 300;
/** How far uptime in ticks and uptime on the clock may be apart: two seconds and one percent. */
const SLACK_SECONDS = 2;
const NANOSECONDS = 1_000_000_000n;

/** Nanoseconds since boot by `jiffies_64`, for each value that CONFIG_HZ can have. */
export function uptimesByJiffies(kernel: Kernel): bigint[] {
  const jiffies = kernel.memory.u64(kernel.symbol('jiffies_64'));
  return frequencies.map((hz) => {
    const ticks = jiffies - (2n ** 32n - BigInt(INITIAL_SECONDS * hz));
    return (ticks * NANOSECONDS) / BigInt(hz);
  });
}

/**
 * CONFIG_HZ, found by comparing `jiffies_64` with the time since boot in nanoseconds. Throws a VmcoreError if
 * none fits.
 *
 * @param now CLOCK_MONOTONIC; the time of the next tick if it is not given
 */
export function ticksPerSecond(
  kernel: Kernel,
  now: bigint = kernel.memory.u64(kernel.symbol('tick_next_period')),
): number {
  const uptime = Number(now) / 1e9;
  const uptimes = uptimesByJiffies(kernel);
  const index = uptimes.findIndex(
    (time) => Math.abs(Number(time) / 1e9 - uptime) <= SLACK_SECONDS + uptime / 100,
  );
  const hz = frequencies[index];
  if (hz !== undefined) return hz;
  throw new VmcoreError(`jiffies do not fit an uptime of ${uptime.toFixed(0)} s at any CONFIG_HZ`);
}
