import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  cstring,
  flags,
  longNumber,
  pointer,
  s32,
  struct,
  u16,
  u32,
  u64,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';

/** `struct inode` (include/linux/fs.h). */
export const inodeStruct = struct('inode', {
  i_mode: u16,
  i_uid: u32,
  i_gid: u32,
  i_sb: pointer,
  i_mapping: pointer,
  i_ino: ulongNumber,
  i_nlink: u32,
  i_rdev: u32,
  i_flags: u32,
  i_size: longNumber,
  i_blocks: ulongNumber,
  // 6.11 split the timespecs into seconds and nanoseconds
  atimeSeconds: longNumber.at('i_atime_sec', 'i_atime.tv_sec'),
  atimeNanoseconds: u32.at('i_atime_nsec').or(longNumber.at('i_atime.tv_nsec')),
  mtimeSeconds: longNumber.at('i_mtime_sec', 'i_mtime.tv_sec'),
  mtimeNanoseconds: u32.at('i_mtime_nsec').or(longNumber.at('i_mtime.tv_nsec')),
  ctimeSeconds: longNumber.at('i_ctime_sec', 'i_ctime.tv_sec'),
  i_generation: u32,
  i_fop: pointer,
  i_flctx: pointer,
  i_pipe: pointer,
  i_data: addressOf('i_data'),
  i_dentry: addressOf('i_dentry'),
  i_sb_list: addressOf('i_sb_list'),
  i_io_list: addressOf('i_io_list'),
  i_wb_list: addressOf('i_wb_list'),
  // 32 bits instead of 64 since 6.12
  i_state: flags,
  i_fsnotify_marks: pointer,
  i_acl: pointer,
  i_default_acl: pointer,
  /** Where a symbolic link leads, if that is not in a page. */
  i_link: pointer,
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
  s_fs_info: pointer,
  s_bdi: pointer,
  s_inodes_wb: addressOf('s_inodes_wb'),
});

export type SuperBlock = ViewOf<typeof superBlockStruct>;

/** `struct file` (include/linux/fs.h). */
export const fileStruct = struct('file', {
  f_mnt: pointer.at('f_path.mnt'),
  f_dentry: pointer.at('f_path.dentry'),
  f_inode: pointer,
  f_op: pointer,
  f_mapping: pointer,
  f_flags: u32,
  f_mode: u32,
  f_count: u64,
  f_pos: u64,
  f_cred: pointer,
  private_data: pointer,
  // 6.12 made it a pointer that stays NULL until F_SETOWN or F_SETSIG; before it is embedded
  f_owner: addressOf('f_owner'),
  f_ep: pointer,
  /** How many writers a FIFO had when it was opened for reading; 6.12 gave that a name of its own. */
  pipeWriters: u64.at('f_pipe', 'f_version'),
});

export type File = ViewOf<typeof fileStruct>;

/** `struct fown_struct`: who gets SIGIO for a file. */
export const fownStruct = struct('fown_struct', {
  pid: pointer,
  pid_type: u32,
  uid: u32,
  euid: u32,
  signum: s32,
});

/** `struct address_space`: the page cache of an inode, and an interval tree of all areas that map it. */
export const addressSpaceStruct = struct('address_space', {
  host: pointer,
  i_pages: addressOf('i_pages'),
  nrpages: ulongNumber,
  i_mmap: addressOf('i_mmap'),
  /** How many of the areas can write to it. */
  i_mmap_writable: s32,
});

export const fileSystemType = struct('file_system_type', { name: pointer, fs_flags: u32 });

/** `file_system_type.fs_flags`: the file system lives on a block device. */
export const FS_REQUIRES_DEV = 1;
/** Bit of `inode.i_flags`: a swap area is on it. */
export const S_SWAPFILE = 256;
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

/**
 * File systems that keep the number of a file's blocks in `inode.i_blocks` at all times; XFS and btrfs do
 * not.
 */
const blockCounters: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4']);

/**
 * Sectors of 512 bytes that a file takes on its disk, those of its tree of blocks and its attributes among
 * them, without those that are put off until its pages are written. Undefined where the file system keeps
 * that number elsewhere.
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
  const times = kernel.bind(inodeStruct).at(inode);
  return {
    accessedMicroseconds: times.atimeSeconds * 1e6 + Math.floor(times.atimeNanoseconds / 1000),
    modifiedMicroseconds: times.mtimeSeconds * 1e6 + Math.floor(times.mtimeNanoseconds / 1000),
    accessedNanoseconds: BigInt(times.atimeSeconds) * 1_000_000_000n + BigInt(times.atimeNanoseconds),
    modifiedNanoseconds: BigInt(times.mtimeSeconds) * 1_000_000_000n + BigInt(times.mtimeNanoseconds),
    changedSeconds: times.ctimeSeconds,
  };
}
