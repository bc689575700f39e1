import { readFileSync } from 'node:fs';

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

/** How much less this process has resident now than it had at its peak, in bytes (VmHWM and VmRSS of proc(5)). */
export function belowOwnPeak(text: string = readFileSync('/proc/self/status', 'utf8')): number {
  const value = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * KIB;
  return Math.max(0, value('VmHWM') - value('VmRSS'));
}
