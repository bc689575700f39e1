import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, bytes, pointer, s32, struct, u32, u64 } from '../vmcore/view.ts';

/**
 * `struct ipc_namespace` (include/linux/ipc_namespace.h). It has the three tables in this order: semaphores,
 * messages, shared memory (ipc/util.h).
 */
export const ipcNamespaceStruct = struct('ipc_namespace', {
  ids: addressOf('ids'),
  mq_mnt: pointer,
  sem_ctls: bytes,
  msg_ctlmax: u32,
  msg_ctlmnb: u32,
  msg_ctlmni: u32,
  shm_ctlmax: u64,
  shm_ctlall: u64,
  shm_ctlmni: s32,
  shm_rmid_forced: s32,
  mq_queues_count: u32,
  mq_queues_max: u32,
  mq_msg_max: u32,
  mq_msgsize_max: u32,
  mq_msg_default: u32,
  mq_msgsize_default: u32,
});

/** `struct ipc_ids`: one table. */
export const ipcIdsStruct = struct('ipc_ids', { ipcs_idr: addressOf('ipcs_idr'), in_use: s32 });

/** How many objects an IPC namespace has: of System V, and POSIX message queues. */
export function ipcObjectCount(kernel: Kernel, namespace: bigint): number {
  const { ids, mq_queues_count } = kernel.bind(ipcNamespaceStruct).at(namespace);
  const Ids = kernel.bind(ipcIdsStruct);
  const tables = [0, 1, 2].map((table) => Ids.at(ids + BigInt(table * Ids.size)).in_use);
  return tables.reduce((sum, count) => sum + count, mq_queues_count);
}

/**
 * What can be set of an IPC namespace, by its file below /proc/sys, as that has it with one space between
 * numbers (ipc/ipc_sysctl.c, ipc/mq_sysctl.c).
 */
export function ipcSettings(kernel: Kernel, namespace: bigint): Readonly<Record<string, string>> {
  const ipc = kernel.bind(ipcNamespaceStruct).at(namespace);
  const sem = Buffer.from(ipc.sem_ctls);
  return {
    'kernel/sem': [0, 4, 8, 12].map((at) => sem.readInt32LE(at)).join(' '),
    'kernel/msgmax': String(ipc.msg_ctlmax),
    'kernel/msgmnb': String(ipc.msg_ctlmnb),
    'kernel/msgmni': String(ipc.msg_ctlmni),
    'kernel/shmmax': String(ipc.shm_ctlmax),
    'kernel/shmall': String(ipc.shm_ctlall),
    'kernel/shmmni': String(ipc.shm_ctlmni),
    'kernel/shm_rmid_forced': String(ipc.shm_rmid_forced),
    'fs/mqueue/queues_max': String(ipc.mq_queues_max),
    'fs/mqueue/msg_max': String(ipc.mq_msg_max),
    'fs/mqueue/msgsize_max': String(ipc.mq_msgsize_max),
    'fs/mqueue/msg_default': String(ipc.mq_msg_default),
    'fs/mqueue/msgsize_default': String(ipc.mq_msgsize_default),
  };
}
