import { constants } from 'node:os';
import { listEmpty } from '../../linux/list.ts';
import { VM } from '../../linux/mm.ts';
import { mmStruct } from '../../linux/mm-types.ts';
import type { TaskList } from '../../linux/readers/task-list.ts';
import { UserMemory } from '../../linux/readers/user-memory.ts';
import { forEachVma } from '../../linux/readers/vma.ts';
import { PF, type Task, taskAt } from '../../linux/sched.ts';
import { hasUndos } from '../../linux/sem.ts';
import { pidOfRole, SIGNAL, signalStruct } from '../../linux/signal.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { MemoryUsers } from '../memory/memory-users.ts';
import type { TaskGroup } from '../tasks.ts';

const { SIGCHLD } = constants.signals;

/** What is asked to find out what the end of a process would do to others. */
export interface EndSource {
  readonly kernel: Kernel;
  /** All processes of the system. */
  readonly list: TaskList;
  readonly memoryUsers: MemoryUsers;
}

/** struct robust_list_head (include/uapi/linux/futex.h): list.next, futex_offset, list_op_pending. */
const ROBUST_HEAD_BYTES = 24;

/**
 * Whether the end of a process would hang up its process group (kill_orphaned_pgrp, kernel/exit.c): its
 * parent is in another one of the session, and a member is stopped. Whether another member has such a parent
 * as well is not looked at.
 */
function mayOrphanStopped({ kernel, list }: EndSource, { leader, signal }: TaskGroup): boolean {
  const parent = taskAt(kernel, leader.real_parent).signal;
  const groupOf = (address: bigint) => pidOfRole(kernel, address, 'PIDTYPE_PGID');
  const sessionOf = (address: bigint) => pidOfRole(kernel, address, 'PIDTYPE_SID');
  const own = groupOf(signal.address);
  if (groupOf(parent) === own || sessionOf(parent) !== sessionOf(signal.address)) return false;
  if (!list.isComplete || list.lost.length > 0) return true;
  return list.tasks.some((address) => {
    const task = taskAt(kernel, address);
    if (address === leader.address || (task.flags & PF.kthread) !== 0) return false;
    const isStopped = (kernel.bind(signalStruct).at(task.signal).flags & SIGNAL.stopStopped) !== 0;
    return isStopped && groupOf(task.signal) === own;
  });
}

/** Whether another process has the memory as well, or may have. */
function hasOtherUsers({ kernel, memoryUsers }: EndSource, mm: bigint, group: TaskGroup): boolean {
  const { byMm, isComplete } = memoryUsers;
  if ((byMm.get(mm) ?? []).some((pid) => pid !== group.pid)) return true;
  return !isComplete && kernel.bind(mmStruct).at(mm).mm_users > group.threads.length;
}

/** Whether others may see what is written to some of the memory. */
function hasSharedAreas(kernel: Kernel, mm: bigint): boolean {
  const mask = VM.mayShare | VM.mayWrite;
  return [...forEachVma(kernel, kernel.bind(mmStruct).at(mm))].some(
    ({ vm_flags: { low } }) => (low & mask) === mask,
  );
}

/** What is wrong with a thread's list of robust futexes, which the kernel walks (exit_robust_list). */
function robustProblem(kernel: Kernel, { mm, robust_list: head }: Task): string | undefined {
  if (head === 0n) return undefined;
  const read = new UserMemory(kernel, kernel.bind(mmStruct).at(mm)).read(head, ROBUST_HEAD_BYTES);
  if (read.kind === 'unmapped') return undefined;
  if (read.kind === 'unknown') return `has a list of robust futexes that cannot be told: ${read.why}`;
  const isEmpty = read.bytes.readBigUInt64LE(0) === head && read.bytes.readBigUInt64LE(16) === 0n;
  return isEmpty ? undefined : 'has locked robust futexes, which others may share';
}

/** What the threads that still have their memory would do in memory that others share (exit_mm_release). */
function memoryObstacles(source: EndSource, group: TaskGroup): string[] {
  const { kernel } = source;
  const tasks = group.threads.filter(({ mm }) => mm !== 0n);
  const [first] = tasks;
  if (first === undefined) return [];
  const isOthers = hasOtherUsers(source, first.mm, group);
  const obstacles: string[] = [];
  // mm_release() writes there only if somebody else has the memory.
  if (isOthers && tasks.some(({ clear_child_tid }) => clear_child_tid !== 0n))
    obstacles.push('is to tell others in memory that it has left (CLONE_CHILD_CLEARTID)');
  if (!isOthers && !hasSharedAreas(kernel, first.mm)) return obstacles;
  for (const task of tasks) {
    const problem = robustProblem(kernel, task);
    if (problem !== undefined) obstacles.push(problem);
    if (task.pi_state_list !== undefined && !listEmpty(kernel, task.pi_state_list))
      obstacles.push('has locked futexes that inherit priority, which others may share');
  }
  return obstacles;
}

/**
 * Why a process that was ending cannot be taken for one that has ended: what do_exit() (kernel/exit.c) would
 * have done to others and cannot be made up for. Each continues `was about to end, and ...`. Throws a
 * VmcoreError.
 */
export function obstaclesOf(source: EndSource, group: TaskGroup): string[] {
  const { kernel } = source;
  const { leader, signal, threads, allThreads } = group;
  const obstacles: (string | false)[] = [
    signal.core_state !== 0n && 'was dumping core',
    leader.exit_signal !== SIGCHLD && `tells its parent with signal ${leader.exit_signal}`,
    allThreads.some(({ ptrace }) => ptrace !== 0) && 'is traced by a debugger',
    threads.some(({ ptraced }) => !listEmpty(kernel, ptraced)) && 'traces another process',
    threads.some(({ io_uring }) => (io_uring ?? 0n) !== 0n) && 'uses io_uring',
    threads.some(({ sysvUndo }) => hasUndos(kernel, sysvUndo)) && 'has System V semaphores to undo',
    allThreads.some(({ children }) => !listEmpty(kernel, children)) && 'has children',
    // disassociate_ctty() sends SIGHUP.
    signal.leader !== 0 &&
      (signal.tty !== 0n || signal.tty_old_pgrp !== 0n) &&
      'leads the session of a terminal',
    mayOrphanStopped(source, group) && 'has stopped processes in its process group',
    threads.some(({ compat_robust_list: list }) => (list ?? 0n) !== 0n) && 'has a 32-bit robust list',
    ...memoryObstacles(source, group),
  ];
  return [...new Set(obstacles.filter((obstacle) => obstacle !== false))];
}
