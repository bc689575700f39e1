import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  array,
  flags,
  optional,
  pageAddress,
  pointer,
  s16,
  s32,
  struct,
  u16,
  u64,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';
import { percpuCounterSum } from './percpu.ts';

/** `struct mm_struct` (include/linux/mm_types.h). */
export const mmStruct = struct('mm_struct', {
  mm_mt: addressOf('mm_mt'),
  pgd: pointer,
  map_count: s32,
  mm_users: s32,
  membarrier_state: optional(s32),
  total_vm: ulongNumber,
  def_flags: flags,
  start_code: ulongNumber,
  end_code: ulongNumber,
  start_data: ulongNumber,
  end_data: ulongNumber,
  start_brk: ulongNumber,
  brk: ulongNumber,
  start_stack: ulongNumber,
  arg_start: ulongNumber,
  arg_end: ulongNumber,
  env_start: ulongNumber,
  env_end: ulongNumber,
  saved_auxv: addressOf('saved_auxv'),
  rss_stat: addressOf('rss_stat'),
  flags,
  ldt: pointer.at('context.ldt'),
  vdso: ulongNumber.at('context.vdso'),
  vdsoImage: pointer.at('context.vdso_image'),
  // 6.4, address tags that the CPU leaves out (LAM)
  lamMask: optional(u64.at('context.lam_cr3_mask')),
  pkeyMap: optional(u16.at('context.pkey_allocation_map')),
  executeOnlyPkey: optional(s16.at('context.execute_only_pkey')),
  ioctx_table: optional(pointer),
  user_ns: pointer,
  exe_file: pointer,
});

export type Mm = ViewOf<typeof mmStruct>;

/** `struct vm_area_struct`. */
export const vmAreaStruct = struct('vm_area_struct', {
  vm_start: pageAddress,
  vm_end: pageAddress,
  vm_mm: pointer,
  vm_flags: flags,
  anon_vma: pointer,
  vm_ops: pointer,
  vm_pgoff: ulongNumber,
  vm_file: pointer,
  vm_private_data: pointer,
  userfaultfd: optional(pointer.at('vm_userfaultfd_ctx.ctx')),
  vm_policy: optional(pointer),
  anon_name: optional(pointer),
});

const vdsoImageStruct = struct('vdso_image', { data: pointer, size: ulongNumber });
const specialMapping = struct('vm_special_mapping', { name: pointer });

export type VmArea = ViewOf<typeof vmAreaStruct>;

/**
 * Bits of `mm_struct.flags` (include/linux/sched/coredump.h), the same in 6.1 and 6.12; MDWE came with 6.3, merging of all areas
 * with 6.4, where it had the bit that is MDWE's second one since 6.7.
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
  return kernel.memory.cstring(kernel.bind(specialMapping).at(area.vm_private_data).name, 32);
}

/** A vDSO has two or three pages. */
const MAX_VDSO_BYTES = 1 << 20;

/**
 * Frames of the kernel's own vDSO image, page by page: processes map these, and read them on first use only. Throws a VmcoreError if the image is not
 * there, or far too large.
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

/** Up to 6.1 each thread counts for itself and adds its counts up every 64 page faults (SPLIT_RSS_COUNTING). */
const taskRssStat = struct('task_struct', { counts: array(s32).at('rss_stat.count') });

/**
 * Resident and swapped pages as the kernel counts them; 6.2 made the counters per-CPU. `threads` are the addresses of the
 * process's tasks; without them the counts of 6.1 are some pages short or over.
 */
export function rssOf(kernel: Kernel, mm: Mm, threads: readonly bigint[] = []): Rss {
  const perCpu = !kernel.hasMember('mm_struct', 'rss_stat.count');
  const perTask = kernel.hasMember('task_struct', 'rss_stat.count');
  const size = BigInt(perCpu ? kernel.sizeOf('percpu_counter') : 8);
  const own = perTask ? threads.map((task) => kernel.bind(taskRssStat).at(task).counts) : [];
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
