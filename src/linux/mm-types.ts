import {
  addressOf,
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

/** `struct mm_struct` (include/linux/mm_types.h). */
export const mmStruct = struct('mm_struct', {
  mm_mt: addressOf('mm_mt'),
  // until 6.1, which has the maple tree instead
  mmap: optional(pointer),
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
  vm_next: optional(pointer),
});

export type VmArea = ViewOf<typeof vmAreaStruct>;

/** `struct vm_special_mapping`, the `vm_private_data` of an area that the kernel made. */
export const vmSpecialMappingStruct = struct('vm_special_mapping', { name: pointer });

/** `struct page`, the descriptor of a page frame. */
export const pageStruct = struct('page', {
  // 6.18 made it a structure of one member; the top bits are node, zone and, without vmemmap, section
  flags,
  mapping: pointer,
  index: ulongNumber,
  /** Of a page in the swap cache: its swap entry (until 6.5 of each page, then of a folio's first). */
  private: u64,
  compound_head: addressOf(),
  _refcount: s32,
});

export type Page = ViewOf<typeof pageStruct>;
