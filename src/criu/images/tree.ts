import type { ImageDirectory } from './image.ts';
import { TaskKobjIdsEntrySchema } from './proto/gen/ids_pb.ts';
import { InventoryEntrySchema } from './proto/gen/inventory_pb.ts';
import { PstreeEntrySchema } from './proto/gen/pstree_pb.ts';
import { FsEntrySchema } from './proto/gen/regfile_pb.ts';
import type { RootedGroup } from './rooted-group.ts';

/** CRTOOLS_IMAGES_V1_1 (criu/include/magic.h). */
const IMAGES_VERSION = 2;

/**
 * All processes are in the namespaces of whoever restores them: the same numbers for the root and for
 * everybody.
 */
const namespaces = {
  pidNsId: 1,
  netNsId: 2,
  ipcNsId: 3,
  utsNsId: 4,
  timeNsId: 5,
  mntNsId: 6,
  userNsId: 7,
  cgroupNsId: 8,
};

/**
 * NETWORK_LOCK_SKIP (criu/include/cr_options.h), which CRIU 3.17 does not know and does nothing about. With
 * any other, CRIU takes away what it has put before the connections, which is not there.
 */
const NO_NETWORK_LOCK = 2;

/** Numbers of shared objects that no process has: those of `criu` itself. */
const nobody = { vmId: 0, filesId: 0, fsId: 0, sighandId: 0 };

/** Writes `inventory.img`. */
export function writeInventory(images: ImageDirectory): void {
  images.image('inventory').entry(InventoryEntrySchema, {
    imgVersion: IMAGES_VERSION,
    fdinfoPerId: true,
    rootIds: { ...nobody, ...namespaces },
    nsPerId: true,
    networkLockMethod: NO_NETWORK_LOCK,
  });
}

/**
 * Writes `pstree.img`, and `ids-PID.img` and `fs-PID.img` of every process. The first process is the root.
 */
export function writeTree({ tree }: Pick<RootedGroup, 'tree'>, images: ImageDirectory): void {
  const pstree = images.image('pstree');
  const pids = new Set(tree.map(({ pid }) => pid));
  for (const process of tree) {
    const { pid, ppid, pgid, sid } = process;
    const threads = process.threads.length === 0 ? [pid] : process.threads.map(({ tid }) => tid);
    pstree.entry(PstreeEntrySchema, { pid, ppid: pids.has(ppid) ? ppid : 0, pgid, sid, threads });
    if (process.memory === undefined) continue;
    images.image('ids', pid).entry(TaskKobjIdsEntrySchema, {
      vmId: process.memory.id,
      filesId: process.filesId,
      fsId: process.fsId,
      sighandId: process.sighandId,
      ...namespaces,
    });
    images.image('fs', pid).entry(FsEntrySchema, {
      cwdId: process.cwdFileId,
      rootId: process.rootFileId,
      umask: process.umask,
    });
  }
}
