import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct, u32, type ViewOf } from '../vmcore/view.ts';
import { settled } from './container.ts';

export const filesStruct = struct('files_struct', {
  fdt: pointer,
  count: u32,
  next_fd: u32,
  fdtab: addressOf('fdtab'),
  fd_array: addressOf('fd_array'),
  open_fds_init: addressOf('open_fds_init'),
  close_on_exec_init: addressOf('close_on_exec_init'),
});

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

/** NR_OPEN_DEFAULT: slots of the table within a `files_struct`; alloc_fdtable makes none of that size. */
const EMBEDDED_FDS = 64;

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
 * bitmap only (alloc_fd without fd_install). Throws a ContainerError if the table's size is impossible, or if
 * it is not this process's own.
 */
export function fdSlots(kernel: Kernel, files: bigint): FdSlot[] {
  return settled(kernel, () => readSlots(kernel, files));
}

/**
 * One slot of a `files_struct`, whatever else the table holds; undefined if it is not in use. Throws as
 * `fdSlots`.
 */
export function fdSlot(kernel: Kernel, files: bigint, fd: number): FdSlot | undefined {
  return settled(kernel, () => {
    const { max, table } = tableOf(kernel, files);
    if (fd < 0 || fd >= max) return undefined;
    const file = kernel.memory.read(table.fd + BigInt(fd * 8), 8).readBigUInt64LE();
    const isSet = (bitmap: bigint): boolean => bit(kernel.memory.read(bitmap + BigInt(fd >> 3), 1), fd & 7);
    const inBitmap = isSet(table.open_fds);
    if (file === 0n && !inBitmap) return undefined;
    return { fd, file, closeOnExec: isSet(table.close_on_exec), inBitmap };
  });
}

/** A table, and how many slots it has. */
function tableOf(kernel: Kernel, files: bigint): { table: ViewOf<typeof fdtable>; max: number } {
  const owner = kernel.bind(filesStruct).at(files);
  const table = kernel.bind(fdtable).at(owner.fdt);
  const max = table.max_fds;
  if (max === 0 || max > MAX_FDS || max * 8 > MAX_TABLE_BYTES || max % 64 !== 0) {
    throw new ContainerError('fd table', table.address, `has ${max} slots`);
  }
  if ((max === EMBEDDED_FDS) !== isEmbedded(owner, table)) {
    throw new ContainerError('fd table', table.address, `has ${max} slots and is not the process's own`);
  }
  return { table, max };
}

function readSlots(kernel: Kernel, files: bigint): FdSlot[] {
  const { table, max } = tableOf(kernel, files);
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

/** Whether a table and all that it points to lie within their `files_struct`. */
function isEmbedded(owner: ViewOf<typeof filesStruct>, table: ViewOf<typeof fdtable>): boolean {
  return (
    table.address === owner.fdtab &&
    table.fd === owner.fd_array &&
    table.open_fds === owner.open_fds_init &&
    table.close_on_exec === owner.close_on_exec_init
  );
}
