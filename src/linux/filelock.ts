import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, u8, u32 } from '../vmcore/view.ts';
import { listForEachEntry } from './list.ts';

/** `struct file_lock_context` (include/linux/filelock.h), `i_flctx` of an inode. */
export const fileLockContextStruct = struct('file_lock_context', {
  flc_flock: addressOf('flc_flock'),
  flc_posix: addressOf('flc_posix'),
  flc_lease: addressOf('flc_lease'),
});

/** `struct file_lock`; 6.9 moved most of it into `struct file_lock_core`. */
export const fileLockStruct = struct('file_lock', {
  list: addressOf().at('c.flc_list', 'fl_list'),
  owner: pointer.at('c.flc_owner', 'fl_owner'),
  flags: u32.at('c.flc_flags', 'fl_flags'),
  type: u8.at('c.flc_type', 'fl_type'),
  pid: s32.at('c.flc_pid', 'fl_pid'),
  file: pointer.at('c.flc_file', 'fl_file'),
  fl_start: s64,
  fl_end: s64,
});

/** Bits of the flags (include/linux/filelock.h). */
export const FL = { posix: 1, flock: 2, delegation: 4, lease: 32, ofdlck: 1024 } as const;

export interface KernelFileLock {
  readonly kind: 'posix' | 'flock' | 'ofd' | 'lease';
  /** F_RDLCK 0, F_WRLCK 1. */
  readonly type: number;
  /** For posix locks the address of the files_struct, for the others that of the struct file. */
  readonly owner: bigint;
  readonly file: bigint;
  readonly pid: number;
  readonly start: bigint;
  /** Last byte; 2^63 - 1 is the end of the file. */
  readonly end: bigint;
}

const MAX_LOCKS = 1 << 20;

/** Locks and leases on an inode (`i_flctx`). Throws a ContainerError if a list is damaged. */
export function fileLocks(kernel: Kernel, context: bigint): KernelFileLock[] {
  if (context === 0n) return [];
  const heads = kernel.bind(fileLockContextStruct).at(context);
  const Lock = kernel.bind(fileLockStruct);
  const locks: KernelFileLock[] = [];
  for (const head of [heads.flc_flock, heads.flc_posix, heads.flc_lease]) {
    for (const lock of listForEachEntry(kernel, head, Lock, 'list', MAX_LOCKS)) {
      const { flags } = lock;
      const kind =
        (flags & FL.ofdlck) !== 0
          ? 'ofd'
          : (flags & FL.posix) !== 0
            ? 'posix'
            : (flags & FL.flock) !== 0
              ? 'flock'
              : 'lease';
      const { type, owner, file, pid, fl_start: start, fl_end: end } = lock;
      locks.push({ kind, type, owner, file, pid, start, end });
    }
  }
  return locks;
}
