import { z } from 'zod';
import type { ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';
import { type Freezer, messageOf, whileHeld } from './held-process.ts';
import type { Tracee } from './tracee.ts';

const SYS = { pkeyAlloc: 330, pkeyFree: 331 } as const;
/** Number of the state component PKRU, which has two bits for each key: SDM volume 3, 4.6.2. */
const PKRU_COMPONENT = 9;
const RIGHTS = 3;

/** Memory protection keys that a process had allocated, none of which is on an area. */
export const memoryKeysSchema = z.strictObject({
  pid: z.int(),
  /** Rising. */
  keys: z.array(z.int()),
  /** PKRU of the first thread, which has it again: its rights to all keys. */
  pkru: z.int(),
});

export type MemoryKeysPlan = z.infer<typeof memoryKeysSchema>;

function pkruOf({ pid, threads }: Process): number {
  const fpu = threads.find(({ tid }) => tid === pid)?.fpu;
  const data = fpu?.components.find(({ number }) => number === PKRU_COMPONENT)?.data;
  return data === undefined ? 0 : Buffer.from(data).readUInt32LE(0);
}

/** Which keys a group's processes have to allocate again. */
export function memoryKeysOf({ processes }: ProcessGroup): MemoryKeysPlan[] {
  return processes.flatMap((process) => {
    const keys = process.memory?.protectionKeys ?? [];
    return keys.length === 0 ? [] : [{ pid: process.pid, keys: [...keys], pkru: pkruOf(process) }];
  });
}

/**
 * The kernel gives the lowest key that is free, and sets the rights to it that it is asked for: asked for those that the thread has, it
 * changes nothing.
 */
export function allocateKeys(tracee: Pick<Tracee, 'pid' | 'call'>, { keys, pkru }: MemoryKeysPlan): void {
  const others: number[] = [];
  const last = keys.at(-1) ?? 0;
  for (let wanted = 1; wanted <= last; wanted++) {
    const key = tracee.call(tracee.pid, SYS.pkeyAlloc, 0, (pkru >>> (2 * wanted)) & RIGHTS);
    if (key !== wanted) throw new Error(`pkey_alloc gives ${key} where ${wanted} is wanted`);
    if (!keys.includes(key)) others.push(key);
  }
  for (const key of others) {
    const result = tracee.call(tracee.pid, SYS.pkeyFree, key);
    if (result !== 0) throw new Error(`key ${key} cannot be freed (errno ${-result})`);
  }
}

/**
 * Has frozen processes allocate their memory protection keys again. Throws an Error if one cannot: its program would take another key for
 * its own.
 *
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreMemoryKeys(plan: readonly MemoryKeysPlan[], freezer: Freezer): Promise<void> {
  for (const keys of plan) {
    try {
      whileHeld(keys.pid, freezer, (tracee) => allocateKeys(tracee, keys));
      await freezer.frozen();
    } catch (error) {
      throw new Error(
        `the memory protection keys of process ${keys.pid} cannot be allocated again: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
}
