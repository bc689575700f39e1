import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  flags,
  optional,
  pointer,
  s32,
  struct,
  u16,
  u32,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';
import { type IpcObject, ipcTable } from './ipc.ts';
import { VM } from './vm-flags.ts';

/** `struct shmid_kernel` (ipc/shm.c): a System V shared memory segment. */
const shmidKernel = struct('shmid_kernel', {
  shm_perm: addressOf('shm_perm'),
  id: s32.at('shm_perm.id'),
  /** IPC_PRIVATE (0) of one that has none, or was removed. */
  key: s32.at('shm_perm.key'),
  uid: u32.at('shm_perm.uid'),
  gid: u32.at('shm_perm.gid'),
  cuid: u32.at('shm_perm.cuid'),
  cgid: u32.at('shm_perm.cgid'),
  mode: u16.at('shm_perm.mode'),
  shm_file: pointer,
  /** Areas that map it. */
  shm_nattch: ulongNumber,
  shm_segsz: ulongNumber,
  /** The `struct pid` of who made it and who attached or detached it last. */
  shm_cprid: pointer,
  shm_lprid: pointer,
});

export type ShmidKernel = ViewOf<typeof shmidKernel>;

/** Bits of a segment's mode besides its permissions (include/linux/shm.h). */
export const SHM = { dest: 0o1000, locked: 0o2000 } as const;

const shmemFlags = struct('shmem_inode_info', { flags: optional(flags), vfs_inode: addressOf('vfs_inode') });

/** Whether an inode of shared memory was made with SHM_NORESERVE, or MAP_NORESERVE. */
export function isNotReserved(kernel: Kernel, inode: bigint): boolean {
  const { low = 0 } = kernel.bind(shmemFlags).containerOf(inode, 'vfs_inode').flags ?? {};
  return (low & VM.noReserve) !== 0;
}

/** All segments of the initial IPC namespace, attached or not, and why not all of them are there. */
export function shmSegments(kernel: Kernel): {
  readonly objects: readonly ShmidKernel[];
  readonly problems: readonly string[];
} {
  const Segment = kernel.bind(shmidKernel);
  return ipcTable(kernel, 2, 'System V shared memory', (_, entry) => Segment.containerOf(entry, 'shm_perm'));
}

/** A segment as one of the objects that outlive their users. */
export function segmentObject({ id, uid, cuid, shm_cprid, shm_lprid }: ShmidKernel): IpcObject {
  const users = [...new Set([shm_cprid, shm_lprid])].filter((pid) => pid !== 0n);
  return { kind: 'System V shared memory segment', name: String(id), uids: [uid, cuid], users };
}
