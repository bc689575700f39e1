import { z } from 'zod';
import type { ProcessGroup } from '../model/group.ts';
import type { AddressSpace } from '../model/memory.ts';
import type { Process } from '../model/process.ts';
import { errnoText } from '../system/errno.ts';
import { messageOf } from '../system/thrown.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import type { Tracee } from './tracee.ts';
import { PKRU } from './x86.ts';

const SYS = { pkeyMprotect: 329, pkeyAlloc: 330, pkeyFree: 331 } as const;
/** PKRU has two bits for each key: SDM volume 3, 4.6.2. */
const RIGHTS = 3;

/** Memory protection keys that a process had allocated, and where it has them. */
export const memoryKeysSchema = z.strictObject({
  pid: z.int(),
  /** Rising. */
  keys: z.array(z.int()),
  /** PKRU of the first thread, which has it again: its rights to all keys. */
  pkru: z.int(),
  /** Areas with a key: user address, length, PROT_READ 1 | PROT_WRITE 2 | PROT_EXEC 4. */
  areas: z.array(z.strictObject({ start: z.int(), bytes: z.int(), prot: z.int(), key: z.int() })),
});

export type MemoryKeysPlan = z.infer<typeof memoryKeysSchema>;

function pkruOf({ pid, threads }: Process): number {
  const fpu = threads.find(({ tid }) => tid === pid)?.fpu;
  const data = fpu?.components.find(({ number }) => number === PKRU)?.data;
  return data === undefined ? 0 : Buffer.from(data).readUInt32LE(0);
}

function areasOf({ vmas }: AddressSpace): MemoryKeysPlan['areas'] {
  return vmas.flatMap(({ start, end, prot, protectionKey: key = 0 }) =>
    key === 0 ? [] : [{ start, bytes: end - start, prot, key }],
  );
}

/** Which keys a group's processes have to allocate again, and to put where. */
export function memoryKeysOf({ processes }: ProcessGroup): MemoryKeysPlan[] {
  return processes.flatMap((process) => {
    const { pid, memory } = process;
    if (memory === undefined || memory.protectionKeys.length === 0) return [];
    return [{ pid, keys: [...memory.protectionKeys], pkru: pkruOf(process), areas: areasOf(memory) }];
  });
}

/**
 * The kernel gives the lowest key that is free, and sets the rights to it that it is asked for: asked for those that the thread has, it
 * changes nothing.
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
 * Has frozen processes allocate their memory protection keys again and put them where they were. Throws an Error if one cannot: its program
 * would take another key for its own.
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
