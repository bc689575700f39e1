import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { dentryChildren, dentryName } from './dcache.ts';
import { inodeStruct } from './fs.ts';
import type { IpcObject, IpcObjects } from './ipc.ts';
import { ipcNamespaceStruct } from './ipc-namespace.ts';
import { mountOf } from './mount.ts';

/** More than fs.mqueue.queues_max of any machine. */
const MAX_QUEUES = 1 << 24;

/** POSIX message queues of the initial IPC namespace (ipc/mqueue.c), whoever has them open. */
export function posixQueues(kernel: Kernel): IpcObjects {
  const objects: IpcObject[] = [];
  try {
    const { mq_mnt } = kernel.bind(ipcNamespaceStruct).at(kernel.symbol('init_ipc_ns'));
    const root = mountOf(kernel, mq_mnt).mnt_root;
    for (const dentry of dentryChildren(kernel, root, MAX_QUEUES)) {
      const { i_uid } = kernel.bind(inodeStruct).at(dentry.d_inode);
      const name = `/${dentryName(kernel, dentry)}`;
      objects.push({ kind: 'POSIX message queue', name, uids: [i_uid], users: [] });
    }
    return { objects, problems: [] };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { objects, problems: [`POSIX message queues cannot be read: ${error.message}`] };
  }
}
