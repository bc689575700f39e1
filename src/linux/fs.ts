import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  cstring,
  flags,
  longNumber,
  pointer,
  struct,
  u16,
  u32,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';

/** `struct inode` (include/linux/fs.h). Times are elsewhere: see {@link inodeTimes}. */
export const inodeStruct = struct('inode', {
  i_mode: u16,
  i_uid: u32,
  i_gid: u32,
  i_sb: pointer,
  i_mapping: pointer,
  i_ino: ulongNumber,
  i_nlink: u32,
  i_rdev: u32,
  i_size: longNumber,
  i_blocks: ulongNumber,
  i_generation: u32,
  i_fop: pointer,
  i_flctx: pointer,
  i_pipe: pointer,
  i_data: addressOf('i_data'),
  i_dentry: addressOf('i_dentry'),
  i_sb_list: addressOf('i_sb_list'),
  i_private: pointer,
});

export type Inode = ViewOf<typeof inodeStruct>;

/** `struct super_block`. */
export const superBlockStruct = struct('super_block', {
  s_list: addressOf('s_list'),
  s_dev: u32,
  s_flags: flags,
  s_blocksize: ulongNumber,
  s_magic: ulongNumber,
  s_type: pointer,
  s_root: pointer,
  s_inodes: addressOf('s_inodes'),
  s_mounts: addressOf('s_mounts'),
  s_id: cstring,
  s_uuid: addressOf('s_uuid'),
});

export type SuperBlock = ViewOf<typeof superBlockStruct>;

const fileSystemType = struct('file_system_type', { name: pointer, fs_flags: u32 });

/** `file_system_type.fs_flags`: the file system lives on a block device. */
export const FS_REQUIRES_DEV = 1;
/** Bit of `super_block.s_flags`: mounted read-only. */
export const SB_RDONLY = 0;
/** Bit of `super_block.s_flags`: the file system knows access control lists. */
export const SB_POSIXACL = 16;

/** dev_t inside the kernel: 12 bits major, 20 bits minor (include/linux/kdev_t.h). */
export function major(device: number): number {
  return device >>> 20;
}
export function minor(device: number): number {
  return device & 0xfffff;
}

/** dev_t as user space gets it from stat(2) (new_encode_dev). */
export function userDevice(device: number): number {
  const [high, low] = [major(device), minor(device)];
  return ((low & 0xff) | (high << 8) | ((low & ~0xff) << 12)) >>> 0;
}

export interface FileSystem {
  readonly name: string;
  readonly onDisk: boolean;
}

/** Name of a super block's file system, and whether it is on a block device. */
export function fileSystemOf(kernel: Kernel, superBlock: bigint): FileSystem {
  const type = kernel.bind(fileSystemType).at(kernel.bind(superBlockStruct).at(superBlock).s_type);
  return { name: kernel.memory.cstring(type.name, 64), onDisk: (type.fs_flags & FS_REQUIRES_DEV) !== 0 };
}

/** File systems that keep the number of a file's blocks in `inode.i_blocks` at all times; XFS and btrfs do not. */
const blockCounters: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4']);

/**
 * Sectors of 512 bytes that a file takes on its disk, those of its tree of blocks and its attributes among them, without those that are put off until its
 * pages are written. Undefined where the file system keeps that number elsewhere.
 */
export function sectorsOf(inode: Pick<Inode, 'i_blocks'>, { name }: FileSystem): number | undefined {
  return blockCounters.has(name) ? inode.i_blocks : undefined;
}

/** By what a file system is found again, though its device has another number after the panic. */
export interface FileSystemIdentity {
  /** `s_magic`, as statfs(2) gives it. */
  readonly magic: number;
  /** `s_uuid` in hexadecimal; undefined if it has none. */
  readonly uuid: string | undefined;
  /** Number of its device then, as stat(2) gives it. */
  readonly device: number;
}

const UUID_BYTES = 16;

/** The identity of a super block's file system. */
export function fileSystemIdentity(kernel: Kernel, superBlock: bigint): FileSystemIdentity {
  const { s_magic, s_uuid, s_dev } = kernel.bind(superBlockStruct).at(superBlock);
  const uuid = kernel.memory.read(s_uuid, UUID_BYTES);
  return {
    magic: s_magic,
    uuid: uuid.every((byte) => byte === 0) ? undefined : uuid.toString('hex'),
    device: userDevice(s_dev),
  };
}

/** Seconds and nanoseconds of an inode's times. 6.11 split the timespecs into seconds and nanoseconds. */
const timespecTimes = struct('inode', {
  atimeSeconds: longNumber.at('i_atime.tv_sec'),
  atimeNanoseconds: longNumber.at('i_atime.tv_nsec'),
  mtimeSeconds: longNumber.at('i_mtime.tv_sec'),
  mtimeNanoseconds: longNumber.at('i_mtime.tv_nsec'),
  ctimeSeconds: longNumber.at('i_ctime.tv_sec'),
});
const splitTimes = struct('inode', {
  atimeSeconds: longNumber.at('i_atime_sec'),
  atimeNanoseconds: u32.at('i_atime_nsec'),
  mtimeSeconds: longNumber.at('i_mtime_sec'),
  mtimeNanoseconds: u32.at('i_mtime_nsec'),
  ctimeSeconds: longNumber.at('i_ctime_sec'),
});

export interface InodeTimes {
  /** Microseconds since 1970; below 2^53 until the year 2255. */
  readonly accessedMicroseconds: number;
  readonly modifiedMicroseconds: number;
  /** The same, whole: nanoseconds since 1970. */
  readonly accessedNanoseconds: bigint;
  readonly modifiedNanoseconds: bigint;
  /** When content, name or attributes changed last, in seconds: the one time that programs cannot set. */
  readonly changedSeconds: number;
}

/** When an inode was last read and written. */
export function inodeTimes(kernel: Kernel, inode: bigint): InodeTimes {
  const times = kernel.hasMember('inode', 'i_atime_sec')
    ? kernel.bind(splitTimes).at(inode)
    : kernel.bind(timespecTimes).at(inode);
  return {
    accessedMicroseconds: times.atimeSeconds * 1e6 + Math.floor(times.atimeNanoseconds / 1000),
    modifiedMicroseconds: times.mtimeSeconds * 1e6 + Math.floor(times.mtimeNanoseconds / 1000),
    accessedNanoseconds: BigInt(times.atimeSeconds) * 1_000_000_000n + BigInt(times.atimeNanoseconds),
    modifiedNanoseconds: BigInt(times.mtimeSeconds) * 1_000_000_000n + BigInt(times.mtimeNanoseconds),
    changedSeconds: times.ctimeSeconds,
  };
}
