import type { Task } from '../linux/sched.ts';
import { signalStruct } from '../linux/signal.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/**
 * Whether a thread that is in execve(2) can call it again as if nothing had happened. The kernel first ends
 * the other threads (de_thread, fs/exec.c); then it lets go of what the thread has in its memory, the list of
 * robust futexes before all (exec_mm_release); then it replaces the memory. As long as the list is there, the
 * memory is. A thread that never had a list does not show how far it has come.
 */
export function isBeforeExec(kernel: Kernel, { robust_list, signal }: Task): boolean {
  return robust_list !== 0n && kernel.bind(signalStruct).at(signal).group_exec_task === 0n;
}
