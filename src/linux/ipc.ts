import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { idrForEach } from './idr.ts';
import { ipcIdsStruct, ipcNamespaceStruct } from './ipc-namespace.ts';

/** IPCMNI_EXTEND. */
const MAX_OBJECTS = 1 << 24;

export type IpcKind =
  | 'System V semaphore set'
  | 'System V message queue'
  | 'System V shared memory segment'
  | 'POSIX message queue';

/** Something that processes meet in; it belongs to the kernel, and outlives its users. */
export interface IpcObject {
  readonly kind: IpcKind;
  /** The number of one of System V, the path of a POSIX message queue. */
  readonly name: string;
  /** Owner and maker. */
  readonly uids: readonly number[];
  /**
   * Addresses of the `struct pid` of processes that made it, used it last or sleep in a call on it, as far as
   * the kernel keeps them: not who made semaphores or a queue, and nobody of a POSIX message queue.
   */
  readonly users: readonly bigint[];
}

/** Those that are somebody's, once each. */
export function knownPids(pids: readonly bigint[]): bigint[] {
  return [...new Set(pids)].filter((pid) => pid !== 0n);
}

/** Objects of one kind, and why not all of them are there. */
export interface IpcObjects {
  readonly objects: readonly IpcObject[];
  readonly problems: readonly string[];
}

/**
 * What one of the three tables of the initial IPC namespace has.
 *
 * @param number of the table: 0 semaphores, 1 messages, 2 shared memory
 * @param read gets the address of an object's `struct kern_ipc_perm`
 */
export function ipcTable<Item>(
  kernel: Kernel,
  number: number,
  what: string,
  read: (kernel: Kernel, entry: bigint) => Item,
): { readonly objects: readonly Item[]; readonly problems: readonly string[] } {
  const objects: Item[] = [];
  try {
    const { ids } = kernel.bind(ipcNamespaceStruct).at(kernel.symbol('init_ipc_ns'));
    const Ids = kernel.bind(ipcIdsStruct);
    const idr = Ids.at(ids + BigInt(number * Ids.size)).ipcs_idr;
    for (const { entry } of idrForEach(kernel, idr, MAX_OBJECTS)) objects.push(read(kernel, entry));
    return { objects, problems: [] };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { objects, problems: [`${what} cannot be read: ${error.message}`] };
  }
}
