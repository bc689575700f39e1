import { readFileSync, writeFileSync } from 'node:fs';

/** Memory of the running kernel, in bytes. */
export interface MemoryNow {
  readonly total: number;
  readonly available: number;
  /** `total - available`. */
  readonly used: number;
}

const KIB = 1024;

/** Reads /proc/meminfo. */
export function readMemory(text: string = readFileSync('/proc/meminfo', 'utf8')): MemoryNow {
  const value = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * KIB;
  const total = value('MemTotal');
  const available = value('MemAvailable');
  return { total, available, used: total - available };
}

/**
 * How much less this process has resident now than it had at its peak since `forgetOwnPeak`, in bytes (VmHWM
 * and VmRSS of proc(5)). Pages of the program itself that were dropped meanwhile count, too: it is a bound
 * from above.
 */
export function belowOwnPeak(text: string = readFileSync('/proc/self/status', 'utf8')): number {
  const value = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * KIB;
  return Math.max(0, value('VmHWM') - value('VmRSS'));
}

/**
 * Lets the peak begin anew (`clear_refs` of proc(5)): pages that are dropped between two peaks then do not
 * count as memory in use. A kernel without it (CONFIG_PROC_PAGE_MONITOR) goes on with the peak that it has.
 */
export function forgetOwnPeak(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    // The peak is a higher bound then.
  }
}
