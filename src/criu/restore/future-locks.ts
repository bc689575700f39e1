import { errnoText } from '../../system/errno.ts';
import { limitOf, setLimit } from '../../system/process-settings.ts';
import { messageOf } from '../../system/thrown.ts';
import type { FutureLock } from '../images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import type { Tracee } from './tracee.ts';

const SYS_mlockall = 151;
/** include/uapi/asm-generic/mman.h */
const [MCL_FUTURE, MCL_ONFAULT] = [2, 4];
const RLIMIT_MEMLOCK = 8;

/**
 * Does a step while a process may lock memory. It may have given up since what it needed to lock some
 * (`can_do_mlock` of mm/mlock.c), which takes no lock from it.
 */
function whileItMayLock<T>(pid: number, step: () => T): T {
  const limit = limitOf(pid, RLIMIT_MEMLOCK);
  if (limit.soft > 0n) return step();
  setLimit(pid, RLIMIT_MEMLOCK, { soft: 1n, hard: limit.hard > 0n ? limit.hard : 1n });
  try {
    return step();
  } finally {
    setLimit(pid, RLIMIT_MEMLOCK, limit);
  }
}

/**
 * Has a process that is held lock what it maps from now on. Without MCL_CURRENT nothing is changed of what is
 * mapped, and no limit is asked for its size (`apply_mlockall_flags`). Throws an Error if the kernel does not
 * let it.
 */
export function lockFuture(tracee: Pick<Tracee, 'pid' | 'call'>, { pid, onFault }: FutureLock): void {
  const flags = MCL_FUTURE | (onFault ? MCL_ONFAULT : 0);
  const result = whileItMayLock(pid, () => tracee.call(pid, SYS_mlockall, flags));
  if (result !== 0) throw new Error(`mlockall fails (${errnoText(-result)})`);
}

/**
 * Has frozen processes lock again what they map from now on (mlockall(2) with MCL_FUTURE), which CRIU does
 * not know of. Throws an Error if one cannot: what it maps could go to a disk.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreFutureLocks(plan: readonly FutureLock[], freezer: Freezer): Promise<void> {
  for (const lock of plan) {
    try {
      whileHeld(lock.pid, freezer, (tracee) => lockFuture(tracee, lock));
      await freezer.frozen();
    } catch (error) {
      throw new Error(`process ${lock.pid} could not lock its future memory again: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
}
