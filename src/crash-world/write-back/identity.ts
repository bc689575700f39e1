import { fstatSync, statfsSync } from 'node:fs';
import type { DirectoryIdentity, FileSystemPlace, UnwrittenFile } from '../../model/file.ts';
import { ioctlMemory } from '../../system/descriptors.ts';
import { inodeGeneration } from '../../system/inode-generation.ts';
import { WriteBackRefusal } from './refusal.ts';

/** A request that tells the UUID of a file system. */
interface UuidRequest {
  readonly request: number;
  /** Bytes of the structure that it fills, and where in it the UUID is. */
  readonly length: number;
  readonly offset: number;
  /** The structure's first byte before the call. */
  readonly first: number;
}

const UUID_BYTES = 16;
/**
 * From the kernel's headers: linux/fs.h (since 6.9), linux/ext4.h (since 6.0), xfs_fs.h and linux/btrfs.h.
 */
const uuidRequests: readonly UuidRequest[] = [
  { request: 0x8011_1500, length: 17, offset: 1, first: 0 }, // FS_IOC_GETFSUUID: struct fsuuid2
  { request: 0x8008_662c, length: 24, offset: 8, first: UUID_BYTES }, // EXT4_IOC_GETFSUUID: struct fsuuid
  { request: 0x8070_5864, length: 112, offset: 64, first: 0 }, // XFS_IOC_FSGEOMETRY_V1: struct xfs_fsop_geom_v1
  { request: 0x8400_941f, length: 1024, offset: 16, first: 0 }, // BTRFS_IOC_FS_INFO: struct btrfs_ioctl_fs_info_args
];

/**
 * The UUID of the file system on which an open file is, in hexadecimal; undefined if it has none or does not
 * tell.
 */
export function fileSystemUuid(fd: number): string | undefined {
  for (const { request, length, offset, first } of uuidRequests) {
    const value = Buffer.alloc(length);
    value[0] = first;
    if (ioctlMemory(fd, request, value) !== 0) continue;
    const uuid = value.subarray(offset, offset + UUID_BYTES);
    if (uuid.some((byte) => byte !== 0)) return uuid.toString('hex');
  }
  return undefined;
}

/**
 * Whether an open file is on the file system of then: the same kind with the same UUID. Where one of the two
 * has no UUID that can be read, the device must have the same number.
 */
export function isSameFileSystem(fd: number, was: FileSystemPlace): boolean {
  // Numbers with the highest bit set (btrfs) come back with a sign from some calls.
  if (statfsSync(`/proc/self/fd/${fd}`).type >>> 0 !== was.magic >>> 0) return false;
  const uuid = was.uuid === undefined ? undefined : fileSystemUuid(fd);
  return uuid === undefined ? fstatSync(fd).dev === was.device : uuid === was.uuid;
}

/** Throws a WriteBackRefusal if an open file or directory is on another file system than a file was. */
export function checkFileSystem(fd: number, { fileSystem }: UnwrittenFile): void {
  if (!isSameFileSystem(fd, fileSystem)) {
    throw new WriteBackRefusal('is on another file system than before the panic');
  }
}

/**
 * Whether an open file or directory has the inode number and, where both are known, the generation of then.
 */
export function isSameInode(fd: number, was: DirectoryIdentity): boolean {
  if (fstatSync(fd).ino !== was.inode) return false;
  const generation = was.generation === 0 ? undefined : inodeGeneration(fd);
  return generation === undefined || generation === was.generation;
}
