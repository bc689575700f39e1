import { errnoText } from '../../system/errno.ts';
import { checked } from '../../system/libc.ts';
import {
  IPC_NOWAIT,
  SEM_UNDO,
  SETVAL,
  type SemaphoreOperation,
  sembufs,
  semop,
} from '../../system/sysv-ipc.ts';
import { messageOf } from '../../system/thrown.ts';
import type { SemaphoreSetPlan } from '../images/plan/semaphores.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import type { Tracee } from './tracee.ts';

const SYS = { semop: 65, semctl: 66 } as const;
/** SEMVMX (include/uapi/linux/sem.h). */
const HIGHEST = 32767;

/** Who makes system calls. */
type Caller = Pick<Tracee, 'pid' | 'call' | 'withBytes'>;

/**
 * Two changes of a semaphore that make none together, and never wait: the kernel does both or neither, one
 * after the other.
 */
function thereAndBack(
  value: number,
  first: SemaphoreOperation,
  second: SemaphoreOperation,
): readonly SemaphoreOperation[] {
  const after = value + first.change;
  return after >= 0 && after <= HIGHEST ? [first, second] : [second, first];
}

/**
 * The operations, each of one semop(2), with which a process that ends adds `adjustment` to a semaphore; its
 * value stays. Half of all values is always far enough from one end to change the semaphore by.
 */
export function undoOperations(
  semaphore: number,
  value: number,
  adjustment: number,
): (readonly SemaphoreOperation[])[] {
  const calls: (readonly SemaphoreOperation[])[] = [];
  const sign = Math.sign(adjustment);
  for (let left = Math.abs(adjustment); left > 0; ) {
    const amount = Math.min(left, Math.max(value, HIGHEST - value));
    const undone = { semaphore, change: -sign * amount, flags: SEM_UNDO | IPC_NOWAIT };
    calls.push(thereAndBack(value, undone, { semaphore, change: sign * amount, flags: IPC_NOWAIT }));
    left -= amount;
  }
  return calls;
}

/** With these the process that makes them is the last that has changed the semaphore; its value stays. */
function touching(semaphore: number, value: number): readonly SemaphoreOperation[] {
  const change = (by: number): SemaphoreOperation => ({ semaphore, change: by, flags: IPC_NOWAIT });
  return thereAndBack(value, change(1), change(-1));
}

function must(what: string, result: number): void {
  if (result < 0) throw new Error(`${what}: ${errnoText(-result)}`);
}

function operate(caller: Caller, id: number, operations: readonly SemaphoreOperation[]): void {
  const result = caller.withBytes(sembufs(operations), (address) =>
    caller.call(caller.pid, SYS.semop, id, address, operations.length),
  );
  must('semop', result);
}

/** Has a process say what is to be undone of a set when it ends. */
export function giveUndos(caller: Caller, { id, semaphores, undos }: SemaphoreSetPlan): void {
  for (const { pid, semaphore, adjustment } of undos) {
    if (pid !== caller.pid) continue;
    const value = semaphores[semaphore]?.value ?? 0;
    for (const operations of undoOperations(semaphore, value, adjustment)) operate(caller, id, operations);
  }
}

/**
 * Has a process be the last that has changed the semaphores of a set that it was. A set without an operation
 * gets none: its values were set, and are set again.
 */
export function changeLast(caller: Caller, { id, isUsed, semaphores }: SemaphoreSetPlan): void {
  for (const [i, { value, lastPid }] of semaphores.entries()) {
    if (lastPid !== caller.pid) continue;
    if (isUsed) operate(caller, id, touching(i, value));
    else must('semctl', caller.call(caller.pid, SYS.semctl, id, i, SETVAL, value));
  }
}

/** Makes an operation on a set that had some, if no process of the group makes any. */
function useSet({ id, isUsed, semaphores, undos }: SemaphoreSetPlan): void {
  if (!isUsed || undos.length > 0 || semaphores.some(({ lastPid }) => lastPid !== undefined)) return;
  const operations = touching(0, semaphores[0]?.value ?? 0);
  checked('semop', semop(id, sembufs(operations), operations.length));
}

/**
 * Has frozen processes make those operations on semaphores that only they can: what is to be undone when they
 * end, and what they were the last to change. The values stay. Throws an Error if one cannot.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function changeSemaphores(plans: readonly SemaphoreSetPlan[], freezer: Freezer): Promise<void> {
  for (const plan of plans) useSet(plan);
  const have = async (pids: Iterable<number>, step: typeof giveUndos): Promise<void> => {
    for (const pid of new Set(pids)) {
      try {
        whileHeld(pid, freezer, (tracee) => {
          for (const plan of plans) step(tracee, plan);
        });
        await freezer.frozen();
      } catch (error) {
        throw new Error(
          `the System V semaphores of process ${pid} cannot be given back: ${messageOf(error)}`,
          {
            cause: error,
          },
        );
      }
    }
  };
  await have(
    plans.flatMap(({ undos }) => undos.map(({ pid }) => pid)),
    giveUndos,
  );
  // The operations of the first step have others as the last.
  await have(
    plans.flatMap(({ semaphores }) => semaphores.flatMap(({ lastPid }) => lastPid ?? [])),
    changeLast,
  );
}
