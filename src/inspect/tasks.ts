import { rssOf } from '../linux/mm.ts';
import { type Mm, mmStruct } from '../linux/mm-types.ts';
import { findTaskByPid, forEachThread } from '../linux/pid.ts';
import { listTasks } from '../linux/readers/task-list.ts';
import { PF, type Task, taskAt } from '../linux/sched.ts';
import { signalStruct } from '../linux/signal.ts';
import { showText } from '../system/byte-text.ts';
import { ContainerError, hex, isDamage, readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** Letters of /proc/PID/stat, by the bit of the state (TASK_REPORT of include/linux/sched.h). */
const STATE_LETTERS = 'SDTtXZP';
const STATE_NOLOAD = 0x400;
const STATE_UNINTERRUPTIBLE = 2;

/** The letter that /proc/PID/stat and ps(1) give for a task's state. */
export function stateLetter(task: Task): string {
  const state = task.__state | task.exit_state;
  if ((state & (STATE_UNINTERRUPTIBLE | STATE_NOLOAD)) === (STATE_UNINTERRUPTIBLE | STATE_NOLOAD)) return 'I';
  for (let bit = 0; bit < STATE_LETTERS.length; bit++) {
    if ((state & (1 << bit)) !== 0) return STATE_LETTERS[bit] ?? '?';
  }
  return 'R';
}

/** One line of `inspect ps`. */
export interface ProcessRow {
  readonly pid: number;
  readonly ppid: number;
  readonly threads: number;
  readonly cpu: number | undefined;
  /** On a CPU when the dump was made. */
  readonly running: boolean;
  readonly state: string;
  /** Undefined for a kernel thread, and where it cannot be read. */
  readonly rssKib: number | undefined;
  readonly comm: string;
  readonly isKernelThread: boolean;
  /** Has memory of its own: no kernel thread, not ended. */
  readonly hasMemory: boolean;
  /** Why parts of the row are not known: its parent is then -1, its threads 0. */
  readonly problem?: string;
}

/** A task's name for people and JSON. */
export function commOf(task: Task): string {
  return showText(task.comm);
}

const PAGE_KIB = 4;

/**
 * Reads a part of a row: of what cannot be read the reason is kept, and something else is put in its place.
 */
type Attempt = <T, U>(read: () => T, otherwise: U) => T | U;

function processRow(kernel: Kernel, task: Task): ProcessRow {
  const problems: string[] = [];
  const attempt: Attempt = (read, otherwise) => {
    try {
      return read();
    } catch (error) {
      if (!isDamage(error)) throw error;
      problems.push(error.message);
      return otherwise;
    }
  };
  attempt(() => checkPid(kernel, task), undefined);
  const isKernelThread = (task.flags & PF.kthread) !== 0;
  const hasMemory = task.mm !== 0n && !isKernelThread;
  return {
    pid: task.pid,
    ppid: attempt(() => (task.real_parent === 0n ? 0 : taskAt(kernel, task.real_parent).tgid), -1),
    threads: attempt(() => threadCount(kernel, task), 0),
    cpu: task.cpu,
    running: task.on_cpu !== 0,
    state: stateLetter(task),
    rssKib: hasMemory ? attempt(() => rssKibOf(kernel, task), undefined) : undefined,
    comm: commOf(task),
    isKernelThread,
    hasMemory,
    ...(problems.length === 0 ? {} : { problem: problems.join('; ') }),
  };
}

/** Throws a ContainerError unless the table of PIDs has the task under the number that it has itself. */
function checkPid(kernel: Kernel, { address, pid }: Task): void {
  if (findTaskByPid(kernel, pid) !== address)
    throw new ContainerError('task', address, `is not the one that the table of PIDs has as ${pid}`);
}

/** Throws a ContainerError where the kernel counted others than are on the list. */
function threadCount(kernel: Kernel, task: Task): number {
  let found = 0;
  for (const _ of forEachThread(kernel, task.address)) found++;
  const { nr_threads: counted } = kernel.bind(signalStruct).at(task.signal);
  if (counted !== found) {
    throw new ContainerError('signal_struct', task.signal, `counts ${counted} threads, ${found} were found`);
  }
  return found;
}

/**
 * The address space of a task that has one. Throws a ContainerError unless it says that it is somebody's:
 * zeros would say that it is empty.
 */
export function mmOf(kernel: Kernel, { mm: address }: Task): Mm {
  const mm = kernel.bind(mmStruct).at(address);
  if (mm.mm_users <= 0) throw new ContainerError('mm_struct', address, `has ${mm.mm_users} users`);
  return mm;
}

function rssKibOf(kernel: Kernel, task: Task): number {
  const { file, anon, shmem } = rssOf(kernel, mmOf(kernel, task));
  return (file + anon + shmem) * PAGE_KIB;
}

/** A process that could not be read, so that the others still are. */
export interface UnreadableTask {
  /** Its number, or the address of its `task_struct` if not even that is known. */
  readonly task: string;
  readonly problem: string;
}

/** What could be read of the processes. */
export interface ProcessListing {
  readonly rows: readonly ProcessRow[];
  readonly unreadable: readonly UnreadableTask[];
  /** What is wrong with the kernel's lists of them; empty if nothing is. */
  readonly damage: readonly string[];
}

/**
 * All processes. One whose structures are damaged is listed as such; a damaged list of tasks is made up for
 * by the table of PIDs.
 */
export function listProcesses(kernel: Kernel): ProcessListing {
  const { tasks, lost, damage } = listTasks(kernel);
  const rows: ProcessRow[] = [];
  const unreadable = lost.map(({ pid, problem }) => ({ task: `process ${pid}`, problem }));
  for (const address of tasks) {
    try {
      rows.push(processRow(kernel, taskAt(kernel, address)));
    } catch (error) {
      if (!isDamage(error)) throw error;
      unreadable.push({ task: `task ${hex(address)}`, problem: error.message });
    }
  }
  return { rows, unreadable, damage };
}

/**
 * The task of a PID or TID, also where the table of PIDs is damaged; throws a VmcoreError if there is none.
 */
export function requireTask(kernel: Kernel, pid: number): Task {
  const address = taskByPid(kernel, pid);
  if (address === undefined)
    throw new VmcoreError(
      `${kernel.path} has no process ${pid}; \`otherworld inspect ${kernel.path} ps\` lists them`,
    );
  return taskAt(kernel, address);
}

function taskByPid(kernel: Kernel, pid: number): bigint | undefined {
  try {
    return findTaskByPid(kernel, pid);
  } catch (error) {
    if (!isDamage(error)) throw error;
    const found = listTasks(kernel).tasks.find((task) => readable(() => taskAt(kernel, task).pid) === pid);
    if (found === undefined) throw error;
    return found;
  }
}
