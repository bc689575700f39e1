import { ipcSleepers } from '../linux/readers/ipc-sleepers.ts';
import type { Task } from '../linux/sched.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** Calls on System V objects that somebody else completes while their thread still sleeps. */
const completedByOthers: ReadonlySet<string> = new Set(['semop', 'semtimedop', 'msgrcv']);
const takesEvents: ReadonlySet<string> = new Set(['io_getevents', 'io_pgetevents']);

/**
 * Whether a thread that sleeps in a call may have something already of what it waits for: the operation on
 * semaphores or the message that another process has taken it off the list for, or some of the events of an
 * AIO context, if it wants several (read_events, fs/aio.c).
 *
 * @param given the call's arguments
 */
export function mayBeServed(
  kernel: Kernel,
  task: Pick<Task, 'address'>,
  name: string,
  given: readonly bigint[],
): boolean {
  if (completedByOthers.has(name)) return !ipcSleepers(kernel).has(task.address);
  return takesEvents.has(name) && BigInt.asIntN(64, given[1] ?? 0n) > 1n;
}
