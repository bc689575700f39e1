import { PAGE_SIZE } from '../system/page.ts';
import { AddressError, ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { vdsoImageStruct } from './arch/x86/vdso.ts';
import { type Mm, type VmArea, vmSpecialMappingStruct } from './mm-types.ts';
import { percpuCounterSum } from './percpu.ts';
import { taskAt, taskStruct } from './sched.ts';

/**
 * Bits of `mm_struct.flags` (include/linux/sched/coredump.h), the same in 6.1 and 6.12; MDWE came with 6.3,
 * merging of all areas with 6.4, where it had the bit that is MDWE's second one since 6.7.
 */
export const MMF = { hasUprobes: 19, disableThp: 24, hasMdwe: 28, mdweNoInherit: 29, mergeAny: 30 } as const;
/** Bits of /proc/PID/coredump_filter: the nine above those of PR_GET_DUMPABLE. */
const DUMP_FILTER_SHIFT = 2;
const DUMP_FILTER_BITS = 9;

/** Whether a MMF_* flag is set. */
export function hasMmFlag(mm: Mm, flag: keyof typeof MMF): boolean {
  return mm.flags.has(MMF[flag]);
}

/** PR_GET_DUMPABLE: 0, 1 or 2. */
export function dumpableOf(mm: Mm): number {
  return mm.flags.low & 3;
}

/** What /proc/PID/coredump_filter shows. */
export function coredumpFilterOf(mm: Mm): number {
  return (mm.flags.low >>> DUMP_FILTER_SHIFT) & (2 ** DUMP_FILTER_BITS - 1);
}

/** Name of a special mapping (`[vdso]`, `[vvar]`), or undefined if the area is none. */
export function specialMappingName(kernel: Kernel, area: VmArea): string | undefined {
  const ops = kernel.symbolMaybe('special_mapping_vmops');
  if (ops === undefined || area.vm_ops !== ops) return undefined;
  return kernel.memory.cstring(kernel.bind(vmSpecialMappingStruct).at(area.vm_private_data).name, 32);
}

/** A vDSO has two or three pages. */
const MAX_VDSO_BYTES = 1 << 20;

/**
 * Frames of the kernel's own vDSO image, page by page: processes map these, and read them on first use only.
 * Throws a VmcoreError if the image is not there, or far too large.
 */
export function vdsoPages(kernel: Kernel, mm: Mm): number[] {
  const image = kernel.bind(vdsoImageStruct).at(mm.vdsoImage);
  if (image.size > MAX_VDSO_BYTES)
    throw new ContainerError('vdso_image', image.address, `has ${image.size} bytes`);
  return Array.from({ length: Math.ceil(image.size / PAGE_SIZE) }, (_, page) =>
    kernel.memory.translate(image.data + BigInt(page * PAGE_SIZE)),
  );
}

/** AT_* pairs that exec left for /proc/PID/auxv; the array's length is the kernel's AT_VECTOR_SIZE. */
export function savedAuxv(kernel: Kernel, mm: Mm): bigint[] {
  const layout = kernel.layouts.member('mm_struct', 'saved_auxv');
  const count = layout?.element?.count ?? 0;
  const raw = kernel.memory.read(mm.saved_auxv, count * 8);
  const words = Array.from({ length: count }, (_, i) => raw.readBigUInt64LE(i * 8));
  let pairs = 0;
  while (pairs * 2 < count && words[pairs * 2] !== 0n) pairs++;
  return words.slice(0, Math.min(count, pairs * 2 + 2));
}

/** Indices of `rss_stat` (include/linux/mm_types_task.h). */
const MM_COUNTERS = { file: 0, anon: 1, swap: 2, shmem: 3 } as const;

/** Pages of a process by kind. */
export interface Rss {
  readonly file: number;
  readonly anon: number;
  readonly swap: number;
  readonly shmem: number;
}

/**
 * Resident and swapped pages as the kernel counts them; 6.2 made the counters per-CPU. `threads` are the
 * addresses of the process's tasks; without them the counts of 6.1 are some pages short or over.
 */
export function rssOf(kernel: Kernel, mm: Mm, threads: readonly bigint[] = []): Rss {
  const perCpu = !kernel.hasMember('mm_struct', 'rss_stat.count');
  const size = BigInt(perCpu ? kernel.sizeOf('percpu_counter') : 8);
  const own = kernel.bind(taskStruct).has('rssCounts')
    ? threads.map((task) => taskAt(kernel, task).rssCounts ?? [])
    : [];
  const value = (index: number): number => {
    const address = mm.rss_stat + BigInt(index) * size;
    const common = perCpu
      ? percpuCounterSum(kernel, address)
      : Number(BigInt.asIntN(64, kernel.memory.u64(address)));
    return own.reduce((sum, counts) => sum + (counts[index] ?? 0), common);
  };
  return {
    file: value(MM_COUNTERS.file),
    anon: value(MM_COUNTERS.anon),
    swap: value(MM_COUNTERS.swap),
    shmem: value(MM_COUNTERS.shmem),
  };
}

/**
 * The physical address of a `struct page`'s frame, all `pages` frames from there on being in the dump. Throws
 * an AddressError that names `what` if the pointer is not into vmemmap or a frame is missing.
 */
export function pageFrames(kernel: Kernel, page: bigint, pages: number, what: string): number {
  const physical = kernel.pageToPfn(page) * PAGE_SIZE;
  requirePhysical(kernel, physical, pages * PAGE_SIZE, what);
  return physical;
}

/** Throws an AddressError that names `what` unless all bytes are in the dump. */
export function requirePhysical(kernel: Kernel, physical: number, length: number, what: string): void {
  if (!kernel.physical.has(physical, length)) {
    throw new AddressError(physical, `and ${length} bytes from there on are not all in the dump`, what);
  }
}

/**
 * Bits of `vm_area_struct.vm_flags` (include/linux/mm.h), the same in 6.1 and 6.12. Kept as two words: the
 * bits from 32 on are architecture's and newer ones, and a bigint per area and test would be slow.
 */
export const VM = {
  read: 0x1,
  write: 0x2,
  exec: 0x4,
  shared: 0x8,
  mayWrite: 0x20,
  mayShare: 0x80,
  growsDown: 0x100,
  uffdMissing: 0x200,
  pfnMap: 0x400,
  uffdWp: 0x1000,
  locked: 0x2000,
  io: 0x4000,
  seqRead: 0x8000,
  randRead: 0x1_0000,
  dontCopy: 0x2_0000,
  dontExpand: 0x4_0000,
  lockOnFault: 0x8_0000,
  noReserve: 0x20_0000,
  hugetlb: 0x40_0000,
  sync: 0x80_0000,
  wipeOnFork: 0x200_0000,
  dontDump: 0x400_0000,
  mixedMap: 0x1000_0000,
  hugePage: 0x2000_0000,
  noHugePage: 0x4000_0000,
  mergeable: 0x8000_0000,
} as const;

/**
 * Bits 32 and up, counted from 32: four bits of protection key, the shadow stack (6.6; before that
 * userfaultfd's third flag had its place), and that flag. MAP_DROPPABLE (6.11) is not among them: such an
 * area is also one of MADV_WIPEONFORK, MADV_DONTDUMP and MAP_NORESERVE, and what the kernel may drop it need
 * not.
 */
export const VM_HIGH = {
  pkey: 0xf,
  shadowStack: 0x20,
  uffdMinorBefore66: 0x20,
  uffdMinor: 0x40,
  sealed: 0x8000_0000,
} as const;

/** madvise(2) numbers of the advice that stays with an area (include/uapi/asm-generic/mman-common.h). */
const stickyAdvice: readonly (readonly [flag: number, advice: number])[] = [
  [VM.randRead, 1],
  [VM.seqRead, 2],
  [VM.dontCopy, 10],
  [VM.mergeable, 12],
  [VM.hugePage, 14],
  [VM.noHugePage, 15],
  [VM.dontDump, 16],
  [VM.wipeOnFork, 18],
];

/** Which madvise(2) calls an area's flags speak of. */
export function adviceOf(flags: number): number[] {
  return stickyAdvice.filter(([flag]) => (flags & flag) !== 0).map(([, advice]) => advice);
}
