import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, struct, u32 } from '../vmcore/view.ts';
import { idrForEach } from './idr.ts';

/** `struct ipc_namespace` has the three tables in this order: semaphores, messages, shared memory (ipc/util.h). */
const ipcNamespace = struct('ipc_namespace', { ids: addressOf('ids') });
const ipcIds = struct('ipc_ids', { ipcs_idr: addressOf('ipcs_idr') });
const semArray = struct('sem_array', {
  id: s32.at('sem_perm.id'),
  uid: u32.at('sem_perm.uid'),
  sem_perm: addressOf('sem_perm'),
  sem_nsems: s32,
});
const semStruct = struct('sem', { sempid: pointer });
const msgQueue = struct('msg_queue', {
  id: s32.at('q_perm.id'),
  uid: u32.at('q_perm.uid'),
  q_perm: addressOf('q_perm'),
  q_lspid: pointer,
  q_lrpid: pointer,
});

/** IPCMNI_EXTEND and the limit of kernel.sem. */
const MAX_OBJECTS = 1 << 24;
const MAX_SEMAPHORES = 65536;

/** A set of semaphores or a queue of messages; they belong to the kernel, not to a process. */
export interface SysvObject {
  readonly kind: 'semaphore set' | 'message queue';
  readonly id: number;
  readonly uid: number;
  /** Addresses of the `struct pid` of processes that used it last. */
  readonly users: readonly bigint[];
}

function semaphoreUsers(kernel: Kernel, set: bigint, count: number): bigint[] {
  if (count < 0 || count > MAX_SEMAPHORES)
    throw new ContainerError('sem_array', set, `has ${count} semaphores`);
  const Sem = kernel.bind(semStruct);
  const first = set + BigInt(kernel.bind(semArray).offsetOf('sems'));
  return Array.from({ length: count }, (_, i) => Sem.at(first + BigInt(i * Sem.size)).sempid);
}

/** System V semaphores and message queues of the initial IPC namespace. Throws a VmcoreError if a table is damaged. */
export function sysvObjects(kernel: Kernel): SysvObject[] {
  const { ids } = kernel.bind(ipcNamespace).at(kernel.symbol('init_ipc_ns'));
  const Ids = kernel.bind(ipcIds);
  const table = (number: number) => [
    ...idrForEach(kernel, Ids.at(ids + BigInt(number * Ids.size)).ipcs_idr, MAX_OBJECTS),
  ];
  const sets = table(0).map(({ entry }): SysvObject => {
    const { address, id, uid, sem_nsems } = kernel.bind(semArray).containerOf(entry, 'sem_perm');
    return { kind: 'semaphore set', id, uid, users: semaphoreUsers(kernel, address, sem_nsems) };
  });
  const queues = table(1).map(({ entry }): SysvObject => {
    const { id, uid, q_lspid, q_lrpid } = kernel.bind(msgQueue).containerOf(entry, 'q_perm');
    return { kind: 'message queue', id, uid, users: [q_lspid, q_lrpid] };
  });
  return [...sets, ...queues];
}
