import { PAGE_SIZE } from '../../system/page.ts';
import { ContainerError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { cgroupSubsysStateStruct, cssSetStruct, pidsCgroupStruct } from '../cgroup.ts';
import { memCgroupStruct } from '../memcontrol.ts';
import { taskAt, taskGroupStruct } from '../sched.ts';

/** PAGE_COUNTER_MAX: no limit. */
const NO_PAGES = 0x7_ffff_ffff_ffff;
/** Pages of which the bytes are a number that is exact, 8 PiB. */
const MOST_PAGES = Math.floor(Number.MAX_SAFE_INTEGER / PAGE_SIZE);
/** PIDS_MAX: one more than there can be. */
const NO_PIDS = 4_194_305n;
/** RUNTIME_INF. */
const NO_QUOTA = 0xffff_ffff_ffff_ffffn;
/** NICE_0_LOAD: `shares` of the weight 100. */
const USUAL_SHARES = 1024 * 1024;
const USUAL_WEIGHT = 100;
/** A hierarchy is not deeper than the paths that are followed. */
const MAX_DEPTH = 64;

/** Limits of version 2 cgroups; absent where there is none. */
export interface CgroupLimits {
  readonly memoryMaxBytes?: number;
  readonly memoryHighBytes?: number;
  readonly memoryLowBytes?: number;
  readonly memoryMinBytes?: number;
  readonly swapMaxBytes?: number;
  readonly tasksMax?: number;
  readonly cpuQuotaMicroseconds?: number;
  readonly cpuPeriodMicroseconds?: number;
  /** 1 to 10000. */
  readonly cpuWeight?: number;
}

function* upwards(kernel: Kernel, css: bigint): Generator<bigint> {
  const State = kernel.bind(cgroupSubsysStateStruct);
  let at = css;
  for (let depth = 0; at !== 0n; depth++) {
    if (depth === MAX_DEPTH) throw new ContainerError('cgroup_subsys_state', css, 'has no end upwards');
    yield at;
    at = State.at(at).parent;
  }
}

function cssOf(kernel: Kernel, task: bigint, controller: 'memory' | 'pids' | 'cpu'): bigint {
  const { subsys } = kernel.bind(cssSetStruct).at(taskAt(kernel, task).cgroups);
  return kernel.memory.pointer(subsys + BigInt(kernel.enumerator(`${controller}_cgrp_id`) * 8));
}

/** The tightest of a limit on the way up; undefined if there is none. */
function tightest(values: readonly number[], none: number): number | undefined {
  const least = Math.min(...values);
  return least >= none ? undefined : least;
}

function memoryLimits(kernel: Kernel, task: bigint): CgroupLimits {
  const Memory = kernel.bind(memCgroupStruct);
  const groups = [...upwards(kernel, cssOf(kernel, task, 'memory'))].map((css) =>
    Memory.containerOf(css, 'css'),
  );
  const least = (name: 'max' | 'high' | 'swapMax'): number | undefined =>
    tightest(
      groups.map((group) => group[name]),
      NO_PAGES,
    );
  // What is protected is the cgroup's own alone: of its ancestors' it has a share.
  const own = (name: 'low' | 'min'): number | undefined => groups[0]?.[name] || undefined;
  return definedOf({
    memoryMaxBytes: inBytes(least('max')),
    memoryHighBytes: inBytes(least('high')),
    memoryLowBytes: inBytes(own('low')),
    memoryMinBytes: inBytes(own('min')),
    swapMaxBytes: inBytes(least('swapMax')),
  });
}

/**
 * Whole pages in bytes; `max`, as what is protected may have it, and all that is more than any machine has,
 * is the largest exact number.
 */
export function inBytes(pages: number | undefined): number | undefined {
  return pages === undefined ? undefined : Math.min(pages, MOST_PAGES) * PAGE_SIZE;
}

function definedOf(limits: { [K in keyof CgroupLimits]: CgroupLimits[K] | undefined }): CgroupLimits {
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}

function tasksLimit(kernel: Kernel, task: bigint): CgroupLimits {
  const Pids = kernel.bind(pidsCgroupStruct);
  const limits = [...upwards(kernel, cssOf(kernel, task, 'pids'))].map(
    (css) => Pids.containerOf(css, 'css').limit,
  );
  // The root's own state has no limit that was ever set.
  const least = limits.slice(0, -1).reduce((a, b) => (b < a ? b : a), NO_PIDS);
  return least >= NO_PIDS ? {} : { tasksMax: Number(least) };
}

/**
 * `cpu.weight` of these shares; a cgroup that is to run only when nothing else does (`cpu.idle`) has fewer
 * than the least weight stands for.
 */
export function weightOf(shares: number): number {
  return Math.max(1, Math.round((shares * USUAL_WEIGHT) / USUAL_SHARES));
}

function cpuLimits(kernel: Kernel, task: bigint): CgroupLimits {
  const Group = kernel.bind(taskGroupStruct);
  const groups = [...upwards(kernel, cssOf(kernel, task, 'cpu'))].map((css) => Group.containerOf(css, 'css'));
  const limited = groups.filter(({ quota, period }) => quota !== NO_QUOTA && period !== 0n);
  const share = ({ quota, period }: { quota: bigint; period: bigint }): number =>
    Number(quota) / Number(period);
  const [least] = limited.toSorted((a, b) => share(a) - share(b));
  const weight = weightOf(groups[0]?.shares ?? USUAL_SHARES);
  return definedOf({
    cpuQuotaMicroseconds: least === undefined ? undefined : Number(least.quota / 1000n),
    cpuPeriodMicroseconds: least === undefined ? undefined : Number(least.period / 1000n),
    cpuWeight: weight === USUAL_WEIGHT || groups.length === 1 ? undefined : weight,
  });
}

/**
 * The limits on memory, tasks and processor time that hold for a task: the tightest from its cgroup up to the
 * root. Block I/O and sets of processors are not among them.
 * @param task address of the `task_struct`
 * @throws VmcoreError if a structure cannot be read
 */
export function cgroupLimits(kernel: Kernel, task: bigint): CgroupLimits {
  return { ...memoryLimits(kernel, task), ...tasksLimit(kernel, task), ...cpuLimits(kernel, task) };
}
