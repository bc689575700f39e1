import type { Kernel } from '../vmcore/kernel.ts';
import { dentryStruct } from './dcache.ts';
import { type File, fileStruct, fownStruct } from './fs.ts';

/** Bits of `f_mode` (include/linux/fs.h), the same in 6.1 and 6.12. */
export const fmode = {
  read: 0x1,
  write: 0x2,
  lseek: 0x4,
  path: 0x4000,
  opened: 0x80000,
  stream: 0x200000,
} as const;

/** Bits of `f_flags` (include/uapi/asm-generic/fcntl.h). */
export const openFlags = {
  accessMode: 0o3,
  writeOnly: 0o1,
  readWrite: 0o2,
  append: 0o2000,
  nonblock: 0o4000,
  async: 0o20000,
  direct: 0o40000,
  largefile: 0o100000,
  directory: 0o200000,
  closeOnExec: 0o2000000,
  path: 0o10000000,
} as const;

/** Largest number of open files that is taken for a sound `f_count`. */
const MAX_FILE_COUNT = 1n << 32n;

/** Whether `f_count` is a number that a file which is open can have. */
export function isCounted({ f_count }: File): boolean {
  return f_count > 0n && f_count < MAX_FILE_COUNT;
}

/**
 * An open file. Throws a VmcoreError if the address is not mapped, and undefined comes back if what is there
 * is not a live struct file: not opened, no references, or so many that the count must be wrong, and an inode
 * that differs from the dentry's.
 */
export function fileAt(kernel: Kernel, address: bigint): File | undefined {
  const file = kernel.bind(fileStruct).at(address);
  const opened = (file.f_mode & (fmode.opened | fmode.path)) !== 0;
  if (!opened || file.f_count === 0n || file.f_inode === 0n || file.f_op === 0n) return undefined;
  return isCounted(file) || kernel.bind(dentryStruct).at(file.f_dentry).d_inode === file.f_inode
    ? file
    : undefined;
}

/** `f_pos` as a signed 64-bit offset. */
export function filePosition(file: File): bigint {
  return BigInt.asIntN(64, file.f_pos);
}

/** Who gets SIGIO for a file. */
export interface Fown {
  /** Address of the `struct pid`, 0n if nobody does. */
  readonly pid: bigint;
  readonly pidType: number;
  readonly uid: number;
  readonly euid: number;
  readonly signum: number;
}

/** The file's owner. */
export function fileOwner(kernel: Kernel, file: File): Fown {
  const isEmbedded = kernel.hasMember('file', 'f_owner.pid');
  const address = isEmbedded ? file.f_owner : kernel.memory.u64(file.f_owner);
  if (address === 0n) return { pid: 0n, pidType: 0, uid: 0, euid: 0, signum: 0 };
  const { pid, pid_type, uid, euid, signum } = kernel.bind(fownStruct).at(address);
  return { pid, pidType: pid_type, uid, euid, signum };
}
