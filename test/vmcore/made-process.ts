import { type Mm, mmStruct } from '../../src/linux/mm-types.ts';
import { UserMemory } from '../../src/linux/readers/user-memory.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { MadeKernel } from './made-kernel.ts';
import { HUGE, PRESENT, PROTNONE } from './tables.ts';

/** maple_leaf_64 in an encoded node pointer, and the mark of one. */
const LEAF = (1n << 3n) | 2n;
const ROOT = 1n;
const FRAME_BITS = 0x000f_ffff_ffff_f000n;
/** Any address: only a NULL means something. */
const SOME_OPERATIONS = 0xffff_ffff_8100_0000n;

/** An area of a process made by hand, in pages. */
export interface MadeArea {
  readonly start: number;
  readonly pages: number;
  readonly flags?: bigint;
  /** The `struct file` that is mapped; anonymous memory if none. */
  readonly file?: bigint;
  /** Place in the file of its first page. */
  readonly pgoff?: number;
  /** One of the kernel's own mappings. */
  readonly isSpecial?: boolean;
  /** Other members, by their path. */
  readonly members?: Readonly<Record<string, bigint>>;
}

/**
 * An address space with these areas (at most seven), in a kernel made by hand; its pages are put in one by
 * one.
 */
export class MadeProcess {
  readonly kernel: MadeKernel;
  readonly mm: Mm;
  readonly user: UserMemory;
  readonly areas: readonly bigint[];

  constructor(kernel: MadeKernel, areas: readonly MadeArea[]) {
    this.kernel = kernel;
    const mm = kernel.allocate('mm_struct');
    kernel.set('mm_struct', mm, 'pgd', kernel.physicalToVirtual(kernel.tables.table.root));
    kernel.set('mm_struct', mm, 'map_count', areas.length);
    kernel.set(
      'mm_struct',
      mm,
      'total_vm',
      areas.reduce((sum, { pages }) => sum + pages, 0),
    );
    const tree = kernel.memberAddress('mm_struct', mm, 'mm_mt');
    const node = kernel.allocate('maple_node');
    kernel.set('maple_tree', tree, 'ma_root', node | LEAF);
    kernel.set('maple_range_64', node, 'parent', tree | ROOT);
    this.areas = areas.map((area) => makeArea(kernel, mm, area));
    let slot = 0;
    for (const [i, { start, pages }] of areas.entries()) {
      kernel.set('maple_range_64', node, `pivot[${slot}]`, start - 1);
      kernel.set('maple_range_64', node, `pivot[${slot + 1}]`, start + pages * PAGE_SIZE - 1);
      kernel.set('maple_range_64', node, `slot[${slot + 1}]`, this.areas[i] ?? 0n);
      slot += 2;
    }
    this.mm = kernel.bind(mmStruct).at(mm);
    this.user = new UserMemory(kernel, this.mm);
  }

  /**
   * Puts a frame into the page tables. `taken`: as PROT_NONE and NUMA balancing do, not present and the frame
   * inverted.
   */
  map(address: number, pfn: number, state: 'present' | 'taken' = 'present', level: 1 | 2 = 1): void {
    const frame = BigInt(pfn * PAGE_SIZE);
    const size = level === 2 ? HUGE : 0n;
    const entry = state === 'present' ? frame | PRESENT | size : (~frame & FRAME_BITS) | PROTNONE | size;
    this.kernel.tables.set(BigInt(address), entry, level);
  }

  /**
   * Puts a swap entry there: number of the area, slot inverted, and bits that say nothing of either.
   */
  swapOut(address: number, slot = 1, type = 0, bits = 0n): void {
    this.kernel.tables.set(BigInt(address), madeSwapEntry(type, slot) | bits);
  }
}

/** An entry of a page table as Linux makes it for a page in swap (arch/x86/include/asm/pgtable_64.h). */
export function madeSwapEntry(type: number, slot: number): bigint {
  const inverted = ~BigInt(slot) & ((1n << 50n) - 1n);
  return (BigInt(type) << 59n) | (inverted << 9n);
}

function makeArea(kernel: MadeKernel, mm: bigint, area: MadeArea): bigint {
  const { start, pages, flags = 0x73n, file = 0n, pgoff = start / PAGE_SIZE, isSpecial = false } = area;
  const address = kernel.allocate('vm_area_struct');
  const members: Readonly<Record<string, bigint>> = {
    vm_start: BigInt(start),
    vm_end: BigInt(start + pages * PAGE_SIZE),
    vm_mm: mm,
    vm_flags: flags,
    vm_ops: file !== 0n || isSpecial ? SOME_OPERATIONS : 0n,
    vm_pgoff: BigInt(pgoff),
    vm_file: file,
    ...area.members,
  };
  for (const [path, value] of Object.entries(members)) kernel.set('vm_area_struct', address, path, value);
  return address;
}
