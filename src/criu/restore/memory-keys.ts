import { errnoText } from '../../system/errno.ts';
import { messageOf } from '../../system/thrown.ts';
import type { MemoryKeysPlan } from '../images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import type { Tracee } from './tracee.ts';

const SYS = { pkeyMprotect: 329, pkeyAlloc: 330, pkeyFree: 331 } as const;
/** PKRU has two bits for each key: SDM volume 3, 4.6.2. */
const RIGHTS = 3;

/**
 * The kernel gives the lowest key that is free, and sets the rights to it that it is asked for: asked for
 * those that the thread has, it changes nothing.
 */
export function giveKeys(tracee: Pick<Tracee, 'pid' | 'call'>, plan: MemoryKeysPlan): void {
  const { keys, pkru, areas } = plan;
  const others: number[] = [];
  const last = keys.at(-1) ?? 0;
  for (let wanted = 1; wanted <= last; wanted++) {
    const key = tracee.call(tracee.pid, SYS.pkeyAlloc, 0, (pkru >>> (2 * wanted)) & RIGHTS);
    if (key !== wanted) throw new Error(`pkey_alloc gives ${key} where ${wanted} is wanted`);
    if (!keys.includes(key)) others.push(key);
  }
  for (const key of others) {
    const result = tracee.call(tracee.pid, SYS.pkeyFree, key);
    if (result !== 0) throw new Error(`key ${key} cannot be freed (${errnoText(-result)})`);
  }
  for (const { start, bytes, prot, key } of areas) {
    const result = tracee.call(tracee.pid, SYS.pkeyMprotect, start, bytes, prot, key);
    if (result !== 0)
      throw new Error(`the area at 0x${start.toString(16)} does not get key ${key} (${errnoText(-result)})`);
  }
}

/**
 * Has frozen processes allocate their memory protection keys again and put them where they were. Throws an
 * Error if one cannot: its program would take another key for its own.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreMemoryKeys(plan: readonly MemoryKeysPlan[], freezer: Freezer): Promise<void> {
  for (const keys of plan) {
    try {
      whileHeld(keys.pid, freezer, (tracee) => giveKeys(tracee, keys));
      await freezer.frozen();
    } catch (error) {
      throw new Error(
        `the memory protection keys of process ${keys.pid} cannot be given again: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
}
