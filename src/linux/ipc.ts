import { ContainerError, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, struct, u32 } from '../vmcore/view.ts';
import { idrForEach } from './idr.ts';
import { ipcIdsStruct, ipcNamespaceStruct } from './ipc-namespace.ts';
import { listForEachEntry } from './list.ts';
import { taskAt } from './sched.ts';
import { pidOfRole } from './signal.ts';

/** `struct sem_array`, `struct sem` and so on: ipc/sem.c. */
export const semArray = struct('sem_array', {
  id: s32.at('sem_perm.id'),
  uid: u32.at('sem_perm.uid'),
  cuid: u32.at('sem_perm.cuid'),
  sem_perm: addressOf('sem_perm'),
  pending_alter: addressOf('pending_alter'),
  pending_const: addressOf('pending_const'),
  sem_nsems: s32,
});
export const semStruct = struct('sem', {
  sempid: pointer,
  pending_alter: addressOf('pending_alter'),
  pending_const: addressOf('pending_const'),
});
/** Operations that the kernel would undo at exit; threads share a list that is mostly empty. */
export const semUndoListStruct = struct('sem_undo_list', { list_proc: addressOf() });
/** An operation that sleeps (semop). */
export const semQueue = struct('sem_queue', { list: addressOf('list'), pid: pointer });
/** `struct msg_queue` and so on: ipc/msg.c. */
export const msgQueue = struct('msg_queue', {
  id: s32.at('q_perm.id'),
  uid: u32.at('q_perm.uid'),
  cuid: u32.at('q_perm.cuid'),
  q_perm: addressOf('q_perm'),
  q_lspid: pointer,
  q_lrpid: pointer,
  q_receivers: addressOf('q_receivers'),
  q_senders: addressOf('q_senders'),
});
/** Threads that sleep in msgrcv and msgsnd. */
export const msgReceiver = struct('msg_receiver', { list: addressOf('r_list'), task: pointer.at('r_tsk') });
export const msgSender = struct('msg_sender', { list: addressOf('list'), task: pointer.at('tsk') });

/** IPCMNI_EXTEND and the limit of kernel.sem. */
const MAX_OBJECTS = 1 << 24;
const MAX_SEMAPHORES = 65536;

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

/** `task_tgid` of a task: the `struct pid` of its process. */
function processPid(kernel: Kernel, task: bigint): bigint {
  return pidOfRole(kernel, taskAt(kernel, task).signal, 'PIDTYPE_TGID');
}

function known(pids: readonly bigint[]): bigint[] {
  return [...new Set(pids)].filter((pid) => pid !== 0n);
}

function semaphoreSet(kernel: Kernel, entry: bigint): IpcObject {
  const set = kernel.bind(semArray).containerOf(entry, 'sem_perm');
  const { address, id, uid, cuid, sem_nsems: count } = set;
  if (count < 0 || count > MAX_SEMAPHORES)
    throw new ContainerError('sem_array', address, `has ${count} semaphores`);
  const Sem = kernel.bind(semStruct);
  const first = address + BigInt(kernel.bind(semArray).offsetOf('sems'));
  const all = Array.from({ length: count }, (_, i) => Sem.at(first + BigInt(i * Sem.size)));
  const sleepers = [set, ...all]
    .flatMap(({ pending_alter, pending_const }) => [pending_alter, pending_const])
    .flatMap((list) => [...listForEachEntry(kernel, list, kernel.bind(semQueue), 'list')]);
  const users = known([...all.map(({ sempid }) => sempid), ...sleepers.map(({ pid }) => pid)]);
  return { kind: 'System V semaphore set', name: String(id), uids: [uid, cuid], users };
}

function messageQueue(kernel: Kernel, entry: bigint): IpcObject {
  const queue = kernel.bind(msgQueue).containerOf(entry, 'q_perm');
  const sleepers = [
    ...listForEachEntry(kernel, queue.q_receivers, kernel.bind(msgReceiver), 'list'),
    ...listForEachEntry(kernel, queue.q_senders, kernel.bind(msgSender), 'list'),
  ];
  const users = known([
    queue.q_lspid,
    queue.q_lrpid,
    ...sleepers.map(({ task }) => processPid(kernel, task)),
  ]);
  return {
    kind: 'System V message queue',
    name: String(queue.id),
    uids: [queue.uid, queue.cuid],
    users,
  };
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

/** System V semaphore sets of the initial IPC namespace. */
export function semaphoreSets(kernel: Kernel): IpcObjects {
  return ipcTable(kernel, 0, 'System V semaphores', semaphoreSet);
}

/** System V message queues of the initial IPC namespace. */
export function messageQueues(kernel: Kernel): IpcObjects {
  return ipcTable(kernel, 1, 'System V message queues', messageQueue);
}
