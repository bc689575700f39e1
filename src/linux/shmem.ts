import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, struct, u32, ulongNumber } from '../vmcore/view.ts';

/** `struct shmem_inode_info` (include/linux/shmem_fs.h), around the inode of tmpfs, memfd and shared anonymous memory. */
const shmemInodeInfo = struct('shmem_inode_info', {
  seals: u32,
  swapped: ulongNumber,
  vfs_inode: addressOf('vfs_inode'),
});

/** F_SEAL_* bits of an inode of shared memory; F_SEAL_SEAL (1) alone if it cannot be sealed. */
export function shmemSeals(kernel: Kernel, inode: bigint): number {
  return kernel.bind(shmemInodeInfo).containerOf(inode, 'vfs_inode').seals;
}

/** What memfd_create and shmem_file_setup put before a name (mm/memfd.c, mm/shmem.c). */
export const MEMFD_PREFIX = 'memfd:';
