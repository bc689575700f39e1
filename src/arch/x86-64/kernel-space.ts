import type { KernelAddressSpace, KernelNumbers, KernelSpace } from '../architecture.ts';
import { pageTable } from './page-table.ts';

/** The canonical upper half begins here with 5-level tables, and later with 4-level ones. */
const KERNEL_HALF = 0xff00_0000_0000_0000n;
/** __START_KERNEL_map (arch/x86/include/asm/page_64_types.h). */
const KERNEL_TEXT_MAP = 0xffff_ffff_8000_0000n;
/** KERNEL_IMAGE_SIZE of kernels that do not say (before 4.7): 512 MiB. */
const DEFAULT_IMAGE_BYTES = 512 << 20;

function initial(info: KernelNumbers): KernelAddressSpace | string {
  const physBase = info.number('phys_base');
  const pgd = info.symbol('swapper_pg_dir') ?? info.symbol('init_top_pgt');
  if (physBase === undefined || pgd === undefined)
    return 'VMCOREINFO has no phys_base or no swapper_pg_dir: not an x86-64 kernel of 4.10 or later';
  if ((info.number('sme_mask') ?? 0) !== 0)
    return 'the machine encrypts its memory (SME): such dumps are not read';
  const image = {
    start: KERNEL_TEXT_MAP,
    end: KERNEL_TEXT_MAP + BigInt(info.number('KERNEL_IMAGE_SIZE') ?? DEFAULT_IMAGE_BYTES),
    physical: physBase,
  };
  const levels = info.number('pgtable_l5_enabled') === 1 ? 5 : 4;
  const table = { format: pageTable, root: Number(pgd - KERNEL_TEXT_MAP) + physBase, levels };
  return { table, start: KERNEL_HALF, linear: [image] };
}

/** Kernel memory of x86-64: Documentation/arch/x86/x86_64/mm.rst; arch/x86/mm/kaslr.c. */
export const kernelSpace: KernelSpace = {
  start: KERNEL_HALF,
  imageStart: KERNEL_TEXT_MAP,
  initial,
  bases: (levels) => ({
    directMap: {
      variable: 'page_offset_base',
      fixed: levels === 5 ? 0xff11_0000_0000_0000n : 0xffff_8880_0000_0000n,
    },
    vmemmap: {
      variable: 'vmemmap_base',
      fixed: levels === 5 ? 0xffd4_0000_0000_0000n : 0xffff_ea00_0000_0000n,
    },
  }),
  baseAlignment: 0x4000_0000n,
};
