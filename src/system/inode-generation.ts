import { ioctlMemory } from './descriptors.ts';

/** FS_IOC_GETVERSION of include/uapi/linux/fs.h. */
const FS_IOC_GETVERSION = 0x80087601;

/**
 * The generation of an open file's inode: it differs when a number is used again. Undefined where there is
 * none.
 */
export function inodeGeneration(fd: number): number | undefined {
  const value = Buffer.alloc(4);
  return ioctlMemory(fd, FS_IOC_GETVERSION, value) === 0 ? value.readUInt32LE() : undefined;
}
