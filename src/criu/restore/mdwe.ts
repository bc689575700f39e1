import { errnoText } from '../../system/errno.ts';
import { messageOf } from '../../system/thrown.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import type { Tracee } from './tracee.ts';

const SYS_prctl = 157;
/** include/uapi/linux/prctl.h, since Linux 6.3. */
const PR_SET_MDWE = 65;
const PR_MDWE_REFUSE_EXEC_GAIN = 1;

/**
 * Has a process that is held give up making memory executable. Throws an Error if the kernel does not let it.
 */
export function refuseExecGain(tracee: Pick<Tracee, 'pid' | 'call'>): void {
  const result = tracee.call(tracee.pid, SYS_prctl, PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
  if (result !== 0) throw new Error(`prctl fails (${errnoText(-result)})`);
}

/**
 * Has frozen processes give up making memory executable again (PR_SET_MDWE), which CRIU does not know of.
 * Throws an Error if one cannot: it would be allowed more than before.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreMdwe(pids: readonly number[], freezer: Freezer): Promise<void> {
  for (const pid of pids) {
    try {
      whileHeld(pid, freezer, refuseExecGain);
      await freezer.frozen();
    } catch (error) {
      throw new Error(`process ${pid} could make memory executable again: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
}
