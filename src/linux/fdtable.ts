import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct, u32 } from '../vmcore/view.ts';

export const filesStruct = struct('files_struct', { fdt: pointer, count: u32, next_fd: u32 });

export const fdtable = struct('fdtable', {
  max_fds: u32,
  fd: pointer,
  close_on_exec: pointer,
  open_fds: pointer,
});

/**
 * Kernel limit of descriptors in one process: sysctl fs.nr_open may not exceed it (fs/file.c,
 * sysctl_nr_open_max).
 */
const MAX_FDS = 0x7fff_ffc0;
/** Tables that large cannot be in a sound machine of a size that we know: 8 bytes a slot. */
const MAX_TABLE_BYTES = 1 << 30;

/** A slot of an fd table that is in use according to the array, the bitmap or both. */
export interface FdSlot {
  readonly fd: number;
  /** Address of the struct file; 0n if only the bitmap says that the descriptor is open. */
  readonly file: bigint;
  readonly closeOnExec: boolean;
  /** Bit in `open_fds`. A slot without it but with a file is no state that the kernel leaves behind. */
  readonly inBitmap: boolean;
}

function bit(bitmap: Buffer, index: number): boolean {
  return ((bitmap[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}

/**
 * All slots in use of a `files_struct`. Descriptors that are reserved while a file is being opened are in the
 * bitmap only (alloc_fd without fd_install). Throws a ContainerError if the table's size is impossible.
 */
export function fdSlots(kernel: Kernel, files: bigint): FdSlot[] {
  const table = kernel.bind(fdtable).at(kernel.bind(filesStruct).at(files).fdt);
  const max = table.max_fds;
  if (max === 0 || max > MAX_FDS || max * 8 > MAX_TABLE_BYTES || max % 64 !== 0) {
    throw new ContainerError('fd table', table.address, `has ${max} slots`);
  }
  const pointers = kernel.memory.read(table.fd, max * 8);
  const open = kernel.memory.read(table.open_fds, max / 8);
  const cloexec = kernel.memory.read(table.close_on_exec, max / 8);
  const slots: FdSlot[] = [];
  for (let fd = 0; fd < max; fd++) {
    const file = pointers.readBigUInt64LE(fd * 8);
    const inBitmap = bit(open, fd);
    if (file !== 0n || inBitmap) slots.push({ fd, file, closeOnExec: bit(cloexec, fd), inBitmap });
  }
  return slots;
}
