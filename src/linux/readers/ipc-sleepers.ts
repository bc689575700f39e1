import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { messageQueues, messageSleepers } from '../msg.ts';
import { pendingOperations, semaphoreSets, semaphoresOf } from '../sem.ts';

const known = new WeakMap<Kernel, ReadonlySet<bigint>>();

function readSleepers(kernel: Kernel): ReadonlySet<bigint> {
  const sleepers = new Set<bigint>();
  for (const set of semaphoreSets(kernel).objects) {
    const operations = readable(() => pendingOperations(kernel, set, semaphoresOf(kernel, set)));
    for (const { sleeper } of operations ?? []) sleepers.add(sleeper);
  }
  for (const queue of messageQueues(kernel).objects) {
    const { receivers = [], senders = [] } = readable(() => messageSleepers(kernel, queue)) ?? {};
    for (const task of [...receivers, ...senders]) sleepers.add(task);
  }
  return sleepers;
}

/**
 * Tasks that wait in semop(2), msgrcv(2) or msgsnd(2), and have got and given nothing yet: who changes the
 * semaphores, or sends the message, takes them off the list before they run. Of an object that cannot be read
 * nobody is there.
 */
export function ipcSleepers(kernel: Kernel): ReadonlySet<bigint> {
  const sleepers = known.get(kernel) ?? readSleepers(kernel);
  known.set(kernel, sleepers);
  return sleepers;
}
