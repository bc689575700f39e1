import { ContainerError, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, struct, u32 } from '../vmcore/view.ts';
import { DEFAULT_LIMIT, settled } from './container.ts';
import { idrFind, idrForEach } from './idr.ts';
import { listForEachEntry } from './list.ts';
import { pidNamespaceStruct } from './pid-namespace.ts';
import { taskStruct } from './sched.ts';
import { signalStruct } from './signal.ts';

/** `struct pid` (include/linux/pid.h): a number's identity, in each namespace that knows it. */
export const pid = struct('pid', { count: u32, level: u32, tasks: addressOf(), numbers: addressOf() });
export const upid = struct('upid', { nr: s32, ns: pointer });

/** What a task's PID links are for: enum pid_type. */
export type PidType = 'PIDTYPE_PID' | 'PIDTYPE_TGID' | 'PIDTYPE_PGID' | 'PIDTYPE_SID';

/** MAX_PID_NS_LEVEL of kernel/pid_namespace.c. */
const MAX_LEVEL = 32;
/** PID_MAX_LIMIT on 64 bits. */
const MAX_PIDS = 1 << 22;

/**
 * The `struct pid` of a number in a namespace (the initial one if none is given), or undefined. Throws a
 * ContainerError if the namespace's table is damaged.
 */
export function findPid(kernel: Kernel, nr: number, namespace?: bigint): bigint | undefined {
  const ns = kernel.bind(pidNamespaceStruct).at(namespace ?? kernel.symbol('init_pid_ns'));
  const found = idrFind(kernel, ns.idr, nr);
  return found === 0n ? undefined : found;
}

/**
 * Number and `struct pid` address of everything in a namespace (the initial one if none is given), ascending.
 */
export function* forEachPid(
  kernel: Kernel,
  namespace?: bigint,
): Generator<{ readonly nr: number; readonly pid: bigint }> {
  const ns = kernel.bind(pidNamespaceStruct).at(namespace ?? kernel.symbol('init_pid_ns'));
  for (const { id, entry } of idrForEach(kernel, ns.idr, Math.min(MAX_PIDS, DEFAULT_LIMIT * 4))) {
    yield { nr: id, pid: entry };
  }
}

/** RESERVED_PIDS: numbers below are given out once, when a system boots. */
const FIRST_LATER = 300;

/** Numbers from `first` to `last`, both included. */
export interface NumberRange {
  readonly first: number;
  readonly last: number;
}

/**
 * Every number of the initial namespace, of processes, threads, process groups and sessions; as far as the
 * table can be read.
 */
export function usedNumbers(kernel: Kernel): {
  readonly numbers: readonly number[];
  readonly problem: string | undefined;
} {
  const numbers: number[] = [];
  try {
    for (const { nr } of forEachPid(kernel)) numbers.push(nr);
    return { numbers, problem: undefined };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { numbers, problem: `the table of PIDs: ${error.message}` };
  }
}

/** The longest stretch of numbers that none of `used` is in; of equal ones the last. */
export function longestFreeRange(used: readonly number[]): NumberRange {
  const bounds = [...used.filter((number) => number >= FIRST_LATER), MAX_PIDS].toSorted((a, b) => a - b);
  let longest: NumberRange = { first: FIRST_LATER, last: FIRST_LATER - 1 };
  let first = FIRST_LATER;
  for (const number of bounds) {
    if (number - first >= longest.last - longest.first + 1) longest = { first, last: number - 1 };
    first = number + 1;
  }
  return longest;
}

/**
 * The first task that uses a `struct pid` in a role (pid_task()), as the address of its `task_struct`; or
 * undefined.
 */
export function pidTask(kernel: Kernel, address: bigint, type: PidType): bigint | undefined {
  const index = kernel.enumerator(type);
  const first = kernel.memory.pointer(kernel.bind(pid).at(address).tasks + BigInt(index * 8));
  if (first === 0n) return undefined;
  return first - BigInt(taskLinkOffset(kernel, index));
}

/** Where a task's link into `struct pid` is. 4.19 moved it from `pids[].node` to `pid_links[]`. */
function taskLinkOffset(kernel: Kernel, index: number): number {
  const layout = kernel.layouts.member('task_struct', `pid_links[${index}]`);
  if (layout !== undefined) return layout.offsetBytes;
  return kernel.layouts.member('task_struct', `pids[${index}].node`)?.offsetBytes ?? 0;
}

/**
 * A `struct pid`'s number in a namespace at `level` (0: the initial one); 0 if it is not known there.
 * pid_nr_ns().
 */
export function pidNr(kernel: Kernel, address: bigint, level = 0): number {
  const view = kernel.bind(pid).at(address);
  if (view.level > MAX_LEVEL) throw new ContainerError('pid', address, `is damaged: level ${view.level}`);
  if (level > view.level) return 0;
  const bound = kernel.bind(upid);
  return bound.at(view.numbers + BigInt(level * bound.size)).nr;
}

/**
 * Addresses of the `task_struct` of every process (thread group leader), oldest first, without the idle task.
 * Throws a ContainerError if the kernel's list of tasks is damaged.
 */
export function* forEachTask(kernel: Kernel): Generator<bigint> {
  const bound = kernel.bind(taskStruct);
  const { tasks } = bound.at(kernel.symbol('init_task'));
  for (const task of listForEachEntry(kernel, tasks, bound, 'tasks', MAX_PIDS)) yield task.address;
}

/** Addresses of the `task_struct` of every thread of a process, the leader first. Throws a ContainerError. */
export function* forEachThread(kernel: Kernel, task: bigint): Generator<bigint> {
  const bound = kernel.bind(taskStruct);
  const { thread_head } = kernel.bind(signalStruct).at(bound.at(task).signal);
  for (const thread of listForEachEntry(kernel, thread_head, bound, 'thread_node', MAX_PIDS))
    yield thread.address;
}

/**
 * Address of the `task_struct` of a process or thread number of the initial namespace, or undefined. Throws a
 * ContainerError if the PID table is damaged, or holds a task of another number.
 */
export function findTaskByPid(kernel: Kernel, nr: number): bigint | undefined {
  return settled(kernel, () => readTaskByPid(kernel, nr));
}

function readTaskByPid(kernel: Kernel, nr: number): bigint | undefined {
  const found = findPid(kernel, nr);
  const task = found === undefined ? undefined : pidTask(kernel, found, 'PIDTYPE_PID');
  if (task !== undefined && kernel.bind(taskStruct).at(task).pid !== nr) {
    throw new ContainerError(
      'task',
      task,
      `is found as PID ${nr}, but says that it is ${kernel.bind(taskStruct).at(task).pid}`,
    );
  }
  return task;
}
