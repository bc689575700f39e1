import { isDeepStrictEqual } from 'node:util';
import * as z from 'zod';
import { findTaskByPid } from '../../linux/pid.ts';
import { type CgroupLimits, cgroupLimits } from '../../linux/readers/cgroup-limits.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

const size = z.int().nonnegative().optional();

/** Limits of a scope, as the handover has them. */
export const scopeLimitsSchema = z.strictObject({
  memoryMaxBytes: size,
  memoryHighBytes: size,
  memoryLowBytes: size,
  memoryMinBytes: size,
  swapMaxBytes: size,
  tasksMax: size,
  cpuQuotaMicroseconds: size,
  cpuPeriodMicroseconds: size,
  cpuWeight: size,
});

/** What is known of the limits that a group's processes were under. */
export interface GroupLimits {
  /** Those that its scope gets. */
  readonly limits: CgroupLimits;
  /** What is lost of them. */
  readonly notes: readonly string[];
}

/** Settings of systemd.resource-control(5). */
export function limitProperties(limits: CgroupLimits): string[] {
  const { cpuQuotaMicroseconds: quota, cpuPeriodMicroseconds: period } = limits;
  const properties: [string, string | number | undefined][] = [
    ['MemoryMax', limits.memoryMaxBytes],
    ['MemoryHigh', limits.memoryHighBytes],
    ['MemoryLow', limits.memoryLowBytes],
    ['MemoryMin', limits.memoryMinBytes],
    ['MemorySwapMax', limits.swapMaxBytes],
    ['TasksMax', limits.tasksMax],
    ['CPUWeight', limits.cpuWeight],
    ['CPUQuota', quota && period ? `${Number(((quota / period) * 100).toFixed(2))}%` : undefined],
    ['CPUQuotaPeriodSec', period === undefined ? undefined : `${period}us`],
  ];
  return properties.flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}

/** The limits that the scope of a group gets: those of its processes, where all had the same. */
export function limitsOfGroup(
  members: readonly { readonly pid: number; readonly limits: CgroupLimits }[],
): GroupLimits {
  const [first, ...others] = members;
  if (first === undefined) return { limits: {}, notes: [] };
  if (others.every(({ limits }) => isDeepStrictEqual(limits, first.limits))) {
    return { limits: first.limits, notes: [] };
  }
  const notes = members
    .map(({ pid, limits }) => ({ pid, properties: limitProperties(limits) }))
    .filter(({ properties }) => properties.length > 0)
    .map(
      ({ pid, properties }) =>
        `process ${pid} was under ${properties.join(', ')}, which does not hold outside its unit: others of its group were not`,
    );
  return { limits: {}, notes };
}

/** The limits of processes in the dead kernel's memory, by pid, and of which they cannot be read. */
export function readScopeLimits(
  kernel: Kernel,
  pids: readonly number[],
): { limits: ReadonlyMap<number, CgroupLimits>; unreadable: string[] } {
  const limits = new Map<number, CgroupLimits>();
  const unreadable: string[] = [];
  for (const pid of pids) {
    try {
      const task = findTaskByPid(kernel, pid);
      if (task !== undefined) limits.set(pid, cgroupLimits(kernel, task));
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      unreadable.push(`which limits the cgroup of process ${pid} had cannot be read: ${error.message}`);
    }
  }
  return { limits, unreadable };
}
