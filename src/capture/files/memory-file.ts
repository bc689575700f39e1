import { dentryName, dentryStruct } from '../../linux/dcache.ts';
import { filePosition } from '../../linux/file.ts';
import { type File, fileSystemOf, type Inode, inodeStruct } from '../../linux/fs.ts';
import { MEMFD_PREFIX, shmemSeals } from '../../linux/shmem.ts';
import type { MemfdFile, MemfdInode } from '../../model/file.ts';
import type { SharedMemory } from '../../model/memory.ts';
import { isWholeText, showText } from '../../system/byte-text.ts';
import type { CaptureContext } from './context.ts';
import { pageCache } from './page-cache.ts';
import { FileRefusal } from './refusal.ts';

/** What a file on the kernel's own tmpfs mount is. */
export type MemoryFileKind = 'memfd' | 'anonymous' | 'sysv' | 'other';

/**
 * Tells memory without a path by the name that its maker gave it (mm/memfd.c, mm/shmem.c, ipc/shm.c); undefined if the file
 * is not on the kernel's internal tmpfs.
 */
export function memoryFileKind(context: CaptureContext, file: File): MemoryFileKind | undefined {
  const { kernel } = context;
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  const dentry = kernel.bind(dentryStruct).at(file.f_dentry);
  if (dentry.d_parent !== dentry.address) return undefined;
  const fileSystem = fileSystemOf(kernel, inode.i_sb).name;
  if (fileSystem === 'hugetlbfs') return 'other';
  if (fileSystem !== 'tmpfs') return undefined;
  const name = dentryName(kernel, dentry);
  if (name === '/') return undefined;
  if (name.startsWith(MEMFD_PREFIX)) return 'memfd';
  if (name === 'dev/zero') return 'anonymous';
  return name.startsWith('SYSV') ? 'sysv' : 'other';
}

/** The content of shared memory, once per inode. Throws a FileRefusal if part of it is in swap. */
export function captureSharedMemory(
  context: CaptureContext,
  inode: Inode,
  origin: SharedMemory['origin'],
): SharedMemory {
  const known = context.memoryByInode.get(inode.address);
  if (known !== undefined) return known;
  const { runs, swapped } = pageCache(context.kernel, inode.i_mapping, true);
  if (swapped > 0) throw new FileRefusal(`has shared memory of which ${swapped} pages are in swap`);
  const memory: SharedMemory = { shmid: context.nextId(), origin, sizeBytes: inode.i_size, runs };
  context.memoryByInode.set(inode.address, memory);
  context.sharedMemory.set(memory.shmid, memory);
  return memory;
}

/** What memfd_create made, once per inode. Throws as `captureSharedMemory`. */
export function captureMemfdInode(context: CaptureContext, file: File): MemfdInode {
  const { kernel } = context;
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  const { shmid } = captureSharedMemory(context, inode, 'memfd');
  const known = context.memfds.get(shmid);
  if (known !== undefined) return known;
  const name = dentryName(kernel, kernel.bind(dentryStruct).at(file.f_dentry)).slice(MEMFD_PREFIX.length);
  if (!isWholeText(name)) throw new FileRefusal(`has a memfd whose name is not UTF-8: ${showText(name)}`);
  const memfd: MemfdInode = {
    inodeId: shmid,
    shmid,
    name,
    uid: inode.i_uid,
    gid: inode.i_gid,
    mode: inode.i_mode,
    sizeBytes: inode.i_size,
    seals: shmemSeals(kernel, inode.address),
  };
  context.memfds.set(shmid, memfd);
  return memfd;
}

/** An open memfd. Throws as `captureSharedMemory`. */
export function captureMemfd(context: CaptureContext, file: File): MemfdFile {
  const { inodeId } = captureMemfdInode(context, file);
  return { type: 'memfd', ...context.common(file), position: filePosition(file), inodeId };
}
