import { dentryName, dentryStruct } from '../../../linux/dcache.ts';
import { type File, fileSystemOf, inodeStruct } from '../../../linux/fs.ts';
import { MEMFD_PREFIX } from '../../../linux/shmem.ts';
import type { CaptureContext } from '../context.ts';

/** What a file on a mount of the kernel's own is, if it is memory. */
export type MemoryFileKind = 'memfd' | 'anonymous' | 'sysv' | 'aio' | 'other';

/**
 * Tells memory without a path by the name that its maker gave it (mm/memfd.c, mm/shmem.c, ipc/shm.c), or by
 * its file system (fs/aio.c); undefined if the file is not on the kernel's internal tmpfs or one of these.
 */
export function memoryFileKind(context: CaptureContext, file: File): MemoryFileKind | undefined {
  const { kernel } = context;
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  const dentry = kernel.bind(dentryStruct).at(file.f_dentry);
  if (dentry.d_parent !== dentry.address) return undefined;
  const fileSystem = fileSystemOf(kernel, inode.i_sb).name;
  if (fileSystem === 'hugetlbfs') return 'other';
  if (fileSystem === 'aio') return 'aio';
  if (fileSystem !== 'tmpfs') return undefined;
  const name = dentryName(kernel, dentry);
  if (name === '/') return undefined;
  if (name.startsWith(MEMFD_PREFIX)) return 'memfd';
  if (name === 'dev/zero') return 'anonymous';
  return name.startsWith('SYSV') ? 'sysv' : 'other';
}
