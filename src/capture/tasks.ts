import { listForEachEntry, listReadEntries } from '../linux/list.ts';
import { findPid, pidTask } from '../linux/pid.ts';
import type { TaskList } from '../linux/readers/task-list.ts';
import { PF, type Task, taskAt, taskState, taskStruct } from '../linux/sched.ts';
import { type Signal, signalStruct } from '../linux/signal.ts';
import type { Refusal } from '../model/verdict.ts';
import { ContainerError, readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/**
 * A process of the dead kernel: its leader, what its threads share, and its live threads, the leader first if
 * it lives.
 */
export interface TaskGroup {
  readonly pid: number;
  readonly leader: Task;
  readonly signal: Signal;
  readonly threads: readonly Task[];
  /** All threads on the list, the dead ones too. */
  readonly allThreads: readonly Task[];
  /** Why it cannot come back, as far as its relatives tell. */
  readonly problem?: string | undefined;
  /** The process among whose children it was found; undefined for a root. */
  readonly foundBy?: number | undefined;
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

/** A task's own word on its parent. */
function realParent(kernel: Kernel, task: bigint): bigint | undefined {
  return readable(() => taskAt(kernel, task).real_parent);
}

/** Children of a process, and why some may be missing. */
interface Children {
  readonly tasks: readonly Task[];
  readonly problem: string | undefined;
}

/**
 * Children of all threads of a process; kernel threads have none of interest. Where a list of them is
 * damaged, all who name it as their parent: these are all only if the parents of all processes can be read.
 */
function childrenOf(kernel: Kernel, list: TaskList, group: TaskGroup): Children {
  const type = kernel.bind(taskStruct);
  const lists = group.allThreads.map(({ children }) =>
    listReadEntries(kernel, children, type, 'sibling', MAX_TASKS),
  );
  const children = new Map(lists.flatMap(({ entries }) => entries.map((task) => [task.address, task])));
  const damage = lists.find((read) => read.damage !== undefined)?.damage;
  let isComplete = damage === undefined || (list.isComplete && list.lost.length === 0);
  if (damage !== undefined) {
    const parents = new Set(group.allThreads.map(({ address }) => address));
    for (const task of list.tasks) {
      const parent = realParent(kernel, task);
      if (parent === undefined) isComplete = false;
      else if (parents.has(parent)) children.set(task, taskAt(kernel, task));
    }
  }
  return {
    tasks: [...children.values()].filter((child) => readable(() => (child.flags & PF.kthread) === 0) ?? true),
    problem: isComplete ? undefined : `may have children that cannot be found: ${damage}`,
  };
}

/**
 * Address of the task with a number, by the table of PIDs or, where that is damaged or has none, among all
 * processes.
 */
function taskOf(kernel: Kernel, list: TaskList, pid: number): bigint | undefined {
  const listed = () => list.tasks.find((task) => readable(() => taskAt(kernel, task).pid) === pid);
  try {
    const entry = findPid(kernel, pid);
    return (entry === undefined ? undefined : pidTask(kernel, entry, 'PIDTYPE_PID')) ?? listed();
  } catch (error) {
    const found = error instanceof VmcoreError ? listed() : undefined;
    if (found === undefined) throw error;
    return found;
  }
}

/**
 * The process with a number, or undefined. A thread's number stands for its process. Throws a VmcoreError if
 * it, or what leads to it, cannot be read.
 */
export function findProcess(kernel: Kernel, list: TaskList, pid: number): TaskGroup | undefined {
  const address = taskOf(kernel, list, pid);
  if (address === undefined) return undefined;
  const task = taskAt(kernel, address);
  if ((task.flags & PF.kthread) !== 0) return undefined;
  const leader = taskAt(kernel, task.group_leader);
  if (leader.pid !== leader.tgid || leader.tgid !== task.tgid) {
    throw new ContainerError(
      'task',
      address,
      `is one of process ${task.tgid}, but its leader of ${leader.tgid}`,
    );
  }
  return taskGroup(kernel, leader);
}

/** The processes to capture. */
export interface SelectedTasks {
  /** Parents before their children, each once. */
  readonly groups: readonly TaskGroup[];
  /** Wanted numbers that no process has. */
  readonly missing: readonly number[];
  /**
   * Wanted processes that cannot be read, each once, with the one among whose children each was found (0 for
   * a root).
   */
  readonly refused: readonly (Refusal & { readonly ppid: number })[];
}

/** The wanted processes, with their descendants if asked for. */
export function selectProcesses(
  kernel: Kernel,
  list: TaskList,
  roots: readonly number[],
  includeDescendants: boolean,
): SelectedTasks {
  const groups = new Map<number, TaskGroup>();
  const missing: number[] = [];
  const refused: (Refusal & { readonly ppid: number })[] = [];
  const refuse = (refusal: Refusal & { readonly ppid: number }): void => {
    // It may be wanted itself, and be found as a child as well, which says more of it.
    const before = refusal.pid === 0 ? -1 : refused.findIndex(({ pid }) => pid === refusal.pid);
    if (before < 0) refused.push(refusal);
    else if (refusal.ppid !== 0) refused[before] = refusal;
  };
  const queue: TaskGroup[] = [];
  const attempt = (
    pid: number,
    comm: string,
    step: () => TaskGroup | undefined,
    foundBy?: number | undefined,
  ): void => {
    try {
      const group = step();
      if (group === undefined) missing.push(pid);
      else queue.push({ ...group, foundBy });
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      refuse({ pid, comm, ppid: foundBy ?? 0, reasons: [`cannot be read: ${error.message}`] });
    }
  };
  for (const pid of roots) attempt(pid, '', () => findProcess(kernel, list, pid));
  for (let group = queue.shift(); group !== undefined; group = queue.shift()) {
    if (groups.has(group.pid)) continue;
    groups.set(group.pid, group);
    if (!includeDescendants) continue;
    const { tasks, problem } = childrenOf(kernel, list, group);
    groups.set(group.pid, { ...group, problem });
    for (const child of tasks) {
      const [pid, comm] = [readable(() => child.pid) ?? 0, readable(() => child.comm) ?? ''];
      attempt(pid, comm, () => taskGroup(kernel, child), group.pid);
    }
  }
  return { groups: parentsFirst(kernel, groups), missing, refused };
}

/** The process that a process's parent is, in the sense of getppid(2). */
export function parentPid(kernel: Kernel, group: TaskGroup): number {
  return taskAt(kernel, group.leader.real_parent).tgid;
}

function parentsFirst(kernel: Kernel, groups: ReadonlyMap<number, TaskGroup>): TaskGroup[] {
  const sorted = new Map<number, TaskGroup>();
  const add = (group: TaskGroup, depth: number): void => {
    if (sorted.has(group.pid) || depth > groups.size) return;
    const parent = groups.get(readable(() => parentPid(kernel, group)) ?? 0);
    if (parent !== undefined && parent !== group) add(parent, depth + 1);
    sorted.set(group.pid, group);
  };
  for (const group of groups.values()) add(group, 0);
  return [...sorted.values()];
}
