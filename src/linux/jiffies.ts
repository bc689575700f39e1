import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** The values that CONFIG_HZ can have on x86 (kernel/Kconfig.hz). */
const frequencies = [250, 1000, 100, 300] as const;

/** jiffies start 300 seconds before they wrap 32 bits (include/linux/jiffies.h, INITIAL_JIFFIES). */
const INITIAL_SECONDS = 300;
/** How far uptime in ticks and uptime on the clock may be apart: two seconds and one percent. */
const SLACK_SECONDS = 2;

/** CONFIG_HZ, found by comparing `jiffies_64` with the time of the next tick. Throws a VmcoreError if none fits. */
export function ticksPerSecond(kernel: Kernel): number {
  const jiffies = Number(kernel.memory.u64(kernel.symbol('jiffies_64')));
  const uptime = Number(kernel.memory.u64(kernel.symbol('tick_next_period'))) / 1e9;
  for (const hz of frequencies) {
    const seconds = (jiffies - (2 ** 32 - INITIAL_SECONDS * hz)) / hz;
    if (Math.abs(seconds - uptime) <= SLACK_SECONDS + uptime / 100) return hz;
  }
  throw new VmcoreError(`jiffies ${jiffies} do not fit an uptime of ${uptime.toFixed(0)} s at any CONFIG_HZ`);
}
