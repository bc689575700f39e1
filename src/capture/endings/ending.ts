import { constants } from 'node:os';
import { taskPtRegs } from '../../linux/arch/index.ts';
import { wasInUserMode } from '../../linux/current.ts';
import { type RunningTasks, switchOf } from '../../linux/readers/running-tasks.ts';
import { PF, type Task } from '../../linux/sched.ts';
import { SIGNAL } from '../../linux/signal.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { registersAtEnd } from '../arch/index.ts';
import { ENOSYS } from '../calls/syscall.ts';
import type { TaskGroup } from '../tasks.ts';

const { SIGKILL } = constants.signals;
const SIGKILL_BIT = 1n << BigInt(SIGKILL - 1);

/** A process whose threads were all about to end. */
export interface Exit {
  /** How a reason begins. */
  readonly was: 'was about to end' | 'was being killed';
  /** As in wait(2); undefined if nothing tells it. */
  readonly exitCode: number | undefined;
}

/** The code of a process that has ended, or was told to: see wait_task_zombie() (kernel/exit.c). */
export function exitCodeOf({ leader, signal }: Pick<TaskGroup, 'leader' | 'signal'>): number {
  return (signal.flags & SIGNAL.groupExit) !== 0 ? signal.group_exit_code : leader.exit_code;
}

/** Whether the registers on a thread's kernel stack are those of the call that it is in. */
function hasRegisters(kernel: Kernel, task: Task, running: RunningTasks): boolean {
  const cpu = running.cpuOf.get(task.address);
  if (cpu === undefined) return task.on_cpu === 0 || switchOf(kernel, running, task) !== undefined;
  return wasInUserMode(kernel, cpu, task.pid) === false && registersAtEnd(kernel, cpu, task).kind === 'stack';
}

/** What the threads of a process give to a call that ends it and has only begun: `error_code` of each. */
function argumentsOfExit(kernel: Kernel, { threads }: TaskGroup, running: RunningTasks): number[] {
  const { systemCalls } = kernel.architecture;
  // exit(2) ends a thread: of the last one, the process.
  const calls = threads.length === 1 ? ['exit', 'exit_group'] : ['exit_group'];
  return threads.flatMap((task) => {
    if (!hasRegisters(kernel, task, running)) return [];
    const { orig_ax, ax, di, cx, ip, r11, flags } = taskPtRegs(kernel, task.stack);
    // Calls of 32-bit code have other numbers; `syscall` alone leaves these two behind.
    if (cx !== ip || r11 !== flags) return [];
    const number = Number(BigInt.asIntN(64, orig_ax));
    if (number < 0 || BigInt.asIntN(64, ax) !== ENOSYS) return [];
    return calls.includes(systemCalls.name(number)) ? [Number(di & 0xffn)] : [];
  });
}

/**
 * Whether a process was ending, and with which code. It is if the kernel has told all of its threads to
 * (SIGNAL_GROUP_EXIT: do_group_exit, synchronize_group_exit, complete_signal), if SIGKILL is pending, or if a
 * thread is at the beginning of exit_group(2). A single thread of several that ends is something else, and so
 * are threads that an execve(2) of another one ends (`group_exec_task`, de_thread in fs/exec.c). Throws a
 * VmcoreError.
 *
 * @returns undefined for a process that goes on, or whose end its parent knows of already
 */
export function exitOf(kernel: Kernel, group: TaskGroup, running: RunningTasks): Exit | undefined {
  const { signal, threads, allThreads } = group;
  if (threads.length === 0) {
    // The leader tells the parent when no other thread is left (release_task).
    return allThreads.length > 1 ? { was: 'was about to end', exitCode: exitCodeOf(group) } : undefined;
  }
  if ((signal.flags & SIGNAL.groupExit) !== 0) {
    const exitCode = signal.group_exit_code;
    return { was: exitCode === SIGKILL ? 'was being killed' : 'was about to end', exitCode };
  }
  if (signal.group_exec_task !== 0n) return undefined;
  const pending = threads.reduce((mask, task) => mask | task.pendingSignal, signal.sharedPendingSignal);
  if ((pending & SIGKILL_BIT) !== 0n) return { was: 'was being killed', exitCode: SIGKILL };
  // A signal that is fatal has been taken off the queue (get_signal), and nothing says which.
  if (threads.some(({ flags }) => (flags & PF.signaled) !== 0)) {
    return { was: 'was about to end', exitCode: undefined };
  }
  const [code, ...others] = argumentsOfExit(kernel, group, running);
  if (code !== undefined) {
    const isOne = others.every((other) => other === code);
    return { was: 'was about to end', exitCode: isOne ? code << 8 : undefined };
  }
  return threads.every(({ flags }) => (flags & PF.exiting) !== 0)
    ? { was: 'was about to end', exitCode: undefined }
    : undefined;
}
