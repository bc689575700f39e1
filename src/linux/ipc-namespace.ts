import { addressOf, pointer, struct } from '../vmcore/view.ts';

/**
 * `struct ipc_namespace` (include/linux/ipc_namespace.h). It has the three tables in this order: semaphores,
 * messages, shared memory (ipc/util.h).
 */
export const ipcNamespaceStruct = struct('ipc_namespace', { ids: addressOf('ids'), mq_mnt: pointer });

/** `struct ipc_ids`: one table. */
export const ipcIdsStruct = struct('ipc_ids', { ipcs_idr: addressOf('ipcs_idr') });
