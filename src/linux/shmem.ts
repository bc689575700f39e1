import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, flags, optional, struct, u32, ulongNumber } from '../vmcore/view.ts';
import { settled } from './container.ts';
import { addressSpaceStruct, fileSystemOf, type Inode, inodeStruct } from './fs.ts';
import { cachedPages } from './pagemap.ts';

/**
 * `struct shmem_inode_info` (include/linux/shmem_fs.h; this module is named after mm/shmem.c), around the
 * inode of tmpfs, memfd and shared anonymous memory.
 */
export const shmemInodeInfo = struct('shmem_inode_info', {
  flags: optional(flags),
  seals: u32,
  swapped: ulongNumber,
  xattrs: addressOf('xattrs'),
  vfs_inode: addressOf('vfs_inode'),
});

/** What the kernel keeps of a mounted tmpfs, in pages and inodes; 0 is no limit. */
export const shmemSbInfo = struct('shmem_sb_info', { max_blocks: ulongNumber, max_inodes: ulongNumber });

/** F_SEAL_* bits of an inode of shared memory; F_SEAL_SEAL (1) alone if it cannot be sealed. */
export function shmemSeals(kernel: Kernel, inode: bigint): number {
  return kernel.bind(shmemInodeInfo).containerOf(inode, 'vfs_inode').seals;
}

/**
 * How many pages of an inode of shared memory are in swap, as it counts them; undefined of one of another
 * file system (ramfs), which has none. `mapping` is its page cache.
 */
export function swappedPages(kernel: Kernel, mapping: bigint): number | undefined {
  const { host } = kernel.bind(addressSpaceStruct).at(mapping);
  if (fileSystemOf(kernel, kernel.bind(inodeStruct).at(host).i_sb).name !== 'tmpfs') return undefined;
  return kernel.bind(shmemInodeInfo).containerOf(host, 'vfs_inode').swapped;
}

/** What memfd_create and shmem_file_setup put before a name (mm/memfd.c, mm/shmem.c). */
export const MEMFD_PREFIX = 'memfd:';

/** A symbolic link is shorter than a page (mm/shmem.c). */
const MAX_TARGET = 4096;

/** Where a symbolic link of tmpfs leads, as bytes. Throws a VmcoreError if it is damaged, or in swap. */
export function shmemSymlink(kernel: Kernel, inode: Inode): Buffer {
  const length = inode.i_size;
  if (length <= 0 || length >= MAX_TARGET) {
    throw new ContainerError('inode', inode.address, `is a symbolic link of ${length} bytes`);
  }
  const { i_link } = inode;
  if (i_link !== 0n) return kernel.memory.read(i_link, length);
  const { i_mapping } = inode;
  const [page] = settled(kernel, () => [...cachedPages(kernel, i_mapping, true)]);
  if (page === undefined || page.index !== 0 || page.state === 'swapped') {
    throw new ContainerError('inode', inode.address, 'is a symbolic link that is not in memory');
  }
  return kernel.physical.withView(page.physical, length, (bytes) => Buffer.from(bytes));
}
