import { ipcSleepers } from '../../linux/readers/ipc-sleepers.ts';
import type { Task } from '../../linux/sched.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Activity } from './syscall.ts';

/** Calls that wait at System V objects; the first ones are completed by others while their thread sleeps. */
const completedByOthers: ReadonlySet<string> = new Set(['semop', 'semtimedop', 'msgrcv']);
const atObjects: ReadonlySet<string> = new Set([...completedByOthers, 'msgsnd']);
const takesEvents: ReadonlySet<string> = new Set(['io_getevents', 'io_pgetevents']);

/**
 * What a thread did in a call, when its state says `activity`. Who is on the list of those who wait at a
 * System V object has got and given nothing, awake or not. Who sleeps and is on none may have got what it
 * waits for: another process has done its operation, or has a message for it. Who waits for several events of
 * an AIO context may have taken some of them (read_events, fs/aio.c).
 *
 * @param cpu that was executing the thread
 * @param given the call's arguments
 */
export function waitActivity(
  kernel: Kernel,
  { task, cpu }: { readonly task: Pick<Task, 'address'>; readonly cpu: number | undefined },
  name: string,
  given: readonly bigint[],
  activity: Activity,
): Activity {
  if (atObjects.has(name) && cpu === undefined && ipcSleepers(kernel).has(task.address)) return 'asleep';
  const isServed =
    completedByOthers.has(name) || (takesEvents.has(name) && BigInt.asIntN(64, given[1] ?? 0n) > 1n);
  return activity === 'asleep' && isServed ? 'running' : activity;
}
