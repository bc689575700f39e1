import { errnoText } from '../../system/errno.ts';
import { setLimit } from '../../system/process-settings.ts';
import { messageOf } from '../../system/thrown.ts';
import type { MemoryLocks } from '../images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import { type GiveLimit, whileUnlimited } from './limit.ts';
import type { Tracee } from './tracee.ts';

const [SYS_mlockall, SYS_mlock2] = [151, 325];
/** include/uapi/asm-generic/mman.h */
const [MCL_FUTURE, MCL_ONFAULT] = [2, 4];
/** include/uapi/asm-generic/mman-common.h */
const MLOCK_ONFAULT = 1;
const RLIMIT_MEMLOCK = 8;

/**
 * Has a process that is held lock areas page by page as they are used, and what it maps from now on. Neither
 * brings a page into memory: without MCL_CURRENT, mlockall changes nothing of what is mapped
 * (`apply_mlockall_flags` and `do_mlock` of mm/mlock.c). Throws an Error if the kernel does not let it.
 */
export function lockMemory(
  tracee: Pick<Tracee, 'pid' | 'call'>,
  { pid, onFault, future }: MemoryLocks,
  give: GiveLimit = setLimit,
): void {
  // It may have given up since what it needed to lock some, which takes no lock from it.
  whileUnlimited(pid, RLIMIT_MEMLOCK, give, () => {
    for (const { start, bytes } of onFault) {
      const result = tracee.call(pid, SYS_mlock2, start, bytes, MLOCK_ONFAULT);
      if (result !== 0) throw new Error(`mlock2 of 0x${start.toString(16)} fails (${errnoText(-result)})`);
    }
    if (future === undefined) return;
    const result = tracee.call(pid, SYS_mlockall, MCL_FUTURE | (future === 'on-fault' ? MCL_ONFAULT : 0));
    if (result !== 0) throw new Error(`mlockall fails (${errnoText(-result)})`);
  });
}

/**
 * Has frozen processes lock again what CRIU does not know of: areas that are locked page by page, and what is
 * mapped from now on (mlockall(2) with MCL_FUTURE). Throws an Error if one cannot: it could go to a disk.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreMemoryLocks(plan: readonly MemoryLocks[], freezer: Freezer): Promise<void> {
  for (const locks of plan) {
    try {
      whileHeld(locks.pid, freezer, (tracee) => lockMemory(tracee, locks));
      await freezer.frozen();
    } catch (error) {
      throw new Error(`process ${locks.pid} could not lock its memory again: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
}
