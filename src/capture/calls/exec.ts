import type { KernelStack } from '../../linux/readers/kernel-stack.ts';
import type { Task } from '../../linux/sched.ts';
import { signalStruct } from '../../linux/signal.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/**
 * Whether a thread that is in execve(2) can call it again as if nothing had happened. The kernel first ends
 * the other threads (de_thread, fs/exec.c); then it lets go of what the thread has in its memory, first of
 * the list of robust futexes, last of a parent that waits in vfork (exec_mm_release); then it replaces the
 * memory. As long as the list or such a parent is there, the memory is. A thread that never had either does
 * not show how far it has come.
 */
export function isBeforeExec(kernel: Kernel, { robust_list, vfork_done, signal }: Task): boolean {
  const hasMemory = robust_list !== 0n || vfork_done !== 0n;
  return hasMemory && kernel.bind(signalStruct).at(signal).group_exec_task === 0n;
}

/**
 * Whether a thread may be where execve(2) takes things away (begin_new_exec, fs/exec.c), by its kernel stack.
 * Descriptors that are to be closed go before the memory does: a second execve would not find its program
 * there (fexecve), and nobody would hear of its failure by a pipe that was closed for its success.
 */
export function mayTakeAway({ frames, end }: KernelStack): boolean {
  return end !== 'user' || frames.some((frame) => frame.function === 'begin_new_exec');
}
