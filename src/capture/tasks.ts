import { listForEachEntry } from '../linux/list.ts';
import { findPid, pidTask } from '../linux/pid.ts';
import { PF, type Task, taskAt, taskState, taskStruct } from '../linux/sched.ts';
import { type Signal, signalStruct } from '../linux/signal.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** A process of the dead kernel: its leader, what its threads share, and its live threads, the leader first if it lives. */
export interface TaskGroup {
  readonly pid: number;
  readonly leader: Task;
  readonly signal: Signal;
  readonly threads: readonly Task[];
  /** All threads on the list, the dead ones too. */
  readonly allThreads: readonly Task[];
}

/** PID_MAX_LIMIT of 64-bit kernels: no process has more threads, no machine more processes. */
const MAX_TASKS = 1 << 22;

/** EXIT_DEAD or EXIT_ZOMBIE: the thread has ended. */
function hasEnded(task: Task): boolean {
  return (task.exit_state & (taskState.exitDead | taskState.exitZombie)) !== 0;
}

/** Reads the threads of a process. Throws a VmcoreError if their list is damaged. */
export function taskGroup(kernel: Kernel, leader: Task): TaskGroup {
  const type = kernel.bind(taskStruct);
  const signal = kernel.bind(signalStruct).at(leader.signal);
  const all = [...listForEachEntry(kernel, signal.thread_head, type, 'thread_node', MAX_TASKS)];
  const live = all.filter((task) => !hasEnded(task));
  return {
    pid: leader.tgid,
    leader,
    signal,
    threads: live.toSorted(
      (a, b) => Number(a.pid !== leader.tgid) - Number(b.pid !== leader.tgid) || a.pid - b.pid,
    ),
    allThreads: all,
  };
}

/** Children of all threads of a process; kernel threads have none of interest. */
function childrenOf(kernel: Kernel, group: TaskGroup): Task[] {
  const type = kernel.bind(taskStruct);
  return group.allThreads
    .flatMap((thread) => [...listForEachEntry(kernel, thread.children, type, 'sibling', MAX_TASKS)])
    .filter((child) => (child.flags & PF.kthread) === 0);
}

/** The process with a number, or undefined. A thread's number stands for its process. */
export function findProcess(kernel: Kernel, pid: number): TaskGroup | undefined {
  const entry = findPid(kernel, pid);
  const address = entry === undefined ? undefined : pidTask(kernel, entry, 'PIDTYPE_PID');
  if (address === undefined) return undefined;
  const task = taskAt(kernel, address);
  if ((task.flags & PF.kthread) !== 0) return undefined;
  return taskGroup(kernel, taskAt(kernel, task.group_leader));
}

/**
 * The wanted processes, with their descendants if asked for, parents before their children, each once. Pids that no process
 * has come back in `missing`.
 */
export function selectProcesses(
  kernel: Kernel,
  roots: readonly number[],
  includeDescendants: boolean,
): { groups: TaskGroup[]; missing: number[] } {
  const groups = new Map<number, TaskGroup>();
  const missing: number[] = [];
  const queue: TaskGroup[] = [];
  for (const pid of roots) {
    const group = findProcess(kernel, pid);
    if (group === undefined) missing.push(pid);
    else queue.push(group);
  }
  for (let group = queue.shift(); group !== undefined; group = queue.shift()) {
    if (groups.has(group.pid)) continue;
    groups.set(group.pid, group);
    if (includeDescendants) {
      queue.push(...childrenOf(kernel, group).map((child) => taskGroup(kernel, child)));
    }
  }
  return { groups: parentsFirst(kernel, groups), missing };
}

/** The process that a process's parent is, in the sense of getppid(2). */
export function parentPid(kernel: Kernel, group: TaskGroup): number {
  return taskAt(kernel, group.leader.real_parent).tgid;
}

function parentsFirst(kernel: Kernel, groups: ReadonlyMap<number, TaskGroup>): TaskGroup[] {
  const sorted = new Map<number, TaskGroup>();
  const add = (group: TaskGroup, depth: number): void => {
    if (sorted.has(group.pid) || depth > groups.size) return;
    const parent = groups.get(parentPid(kernel, group));
    if (parent !== undefined && parent !== group) add(parent, depth + 1);
    sorted.set(group.pid, group);
  };
  for (const group of groups.values()) add(group, 0);
  return [...sorted.values()];
}
