import type { Task } from '../../linux/sched.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { syscallRow } from '../calls/syscall-table.ts';
import { unfinishedCall } from '../calls/unfinished-call.ts';

/**
 * What a thread was doing to its process as a whole: making another program of it, ending it, giving back
 * what requests in flight go to. That is not about where the thread was, and is lost with nobody. Throws a
 * VmcoreError.
 *
 * @returns what goes on after "thread N "
 */
export function underWay(kernel: Kernel, task: Pick<Task, 'stack'>): string[] {
  const call = unfinishedCall(kernel, task);
  if (call === undefined) return [];
  const { isOfProcess, reason } = syscallRow(call.name);
  return isOfProcess === true ? [`was in ${call.name}: ${reason}`] : [];
}
