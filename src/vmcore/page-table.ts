import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError } from './errors.ts';
import type { Kernel } from './kernel.ts';
import type { PhysicalMemory } from './physical.ts';

const PRESENT = 1;
const HUGE = 1 << 7;
/**
 * Set in an entry that keeps its frame but must not be used (PROT_NONE, NUMA hinting); PRESENT is then clear and the
 * frame's bits are inverted (arch/x86/include/asm/pgtable-invert.h).
 */
const PROTNONE = 1 << 8;
/** Flags that pages of one run share: all but accessed (bit 5) and soft-dirty (bit 11). */
const RUN_FLAGS = 0xfff & ~(1 << 5) & ~(1 << 11);
/** Bits 32..51 of an entry's frame address, in its high word. */
const FRAME_HIGH = 0x000f_ffff;
const WORD = 0x1_0000_0000;
/** Pages that one entry covers, by level: 1 is the page table itself. */
const PAGES_PER_ENTRY = [0, 1, 512, 512 ** 2, 512 ** 3, 512 ** 4];

/** Paging structures of x86-64: where the top table is, and how many levels (4 or 5). */
export interface PageTable {
  /** Physical address of the top-level table (CR3 without its flag bits). */
  readonly root: number;
  readonly levels: number;
}

/** A run of pages of the same kind: adjacent in virtual memory and, if present, in physical memory too. */
export interface MappedRun {
  /** User address of the first page. */
  readonly address: number;
  /** Number of 4 KiB pages. */
  readonly pages: number;
  /** `swap`: the entry is not present but not empty (swap entry, migration entry, marker). */
  readonly kind: 'present' | 'swap';
  /** Frame number of the first page; 0 for swap. */
  readonly pfn: number;
  /** The first page's table entry, as two words. */
  readonly entryLow: number;
  readonly entryHigh: number;
  /** 4 KiB, 2 MiB or 1 GiB: what the entry maps. */
  readonly pageSizeBytes: number;
}

/** Frame address of an entry's two words (read unsigned), without its flag bits. */
function frameOf(low: number, high: number): number {
  return (high & FRAME_HIGH) * WORD + ((low & ~(PAGE_SIZE - 1)) >>> 0);
}

/** The number of the page that holds a virtual address: the address without its low 12 bits and its sign (below 2^45, so it fits a number). */
export function pageNumber(address: bigint): number {
  return Number((address >> 12n) & 0x1fff_ffff_ffffn);
}

/**
 * Physical address of a page (its number) of the kernel's own addresses, or undefined if it is not mapped: in the kernel's tables a page that is
 * not present is none, whatever else its entry says (KFENCE takes pages away so). Memory of a process is for {@link walkPages}. Throws an AddressError if a table is not in the dump.
 * @param tables gets the physical address of each table on the way
 */
export function translateKernelPage(
  physical: PhysicalMemory,
  table: PageTable,
  page: number,
  tables?: Set<number>,
): number | undefined {
  let base = table.root;
  for (let level = table.levels; level >= 1; level--) {
    tables?.add(base);
    const span = PAGES_PER_ENTRY[level] ?? 1;
    const index = Math.floor(page / span) % 512;
    const { data, offset } = physical.window(base + index * 8, 8);
    const low = data.getUint32(offset, true);
    const high = data.getUint32(offset + 4, true);
    if ((low & PRESENT) === 0) return undefined;
    const frame = frameOf(low, high);
    if (level === 1) return frame;
    if ((low & HUGE) !== 0) {
      if (level > 3)
        throw new ContainerError('page table', BigInt(base), `has a huge page at level ${level}`);
      const bytes = span * PAGE_SIZE;
      return frame - (frame % bytes) + (page % span) * PAGE_SIZE;
    }
    base = frame;
  }
  return undefined;
}

/** Whether `next` goes on where `run` ends, with the same flags but for accessed and soft-dirty. */
function continues(run: MappedRun, next: MappedRun): boolean {
  return (
    run.kind === 'present' &&
    next.kind === 'present' &&
    run.pageSizeBytes === next.pageSizeBytes &&
    run.address + run.pages * PAGE_SIZE === next.address &&
    run.pfn + run.pages === next.pfn &&
    ((run.entryLow ^ next.entryLow) & RUN_FLAGS) === 0 &&
    run.entryHigh >>> 20 === next.entryHigh >>> 20
  );
}

/** Whether an entry maps a page, as pte_present() says. A huge entry that is being split counts too. */
function isPresent(low: number, level: number): boolean {
  return (low & (level > 1 ? PRESENT | PROTNONE | HUGE : PRESENT | PROTNONE)) !== 0;
}

/** A table on the way down, and the next of its entries. */
interface Step {
  readonly data: DataView;
  readonly offset: number;
  readonly base: number;
  readonly level: number;
  readonly tableAddress: number;
  readonly last: number;
  index: number;
}

class Walk {
  readonly #physical: PhysicalMemory;
  readonly #start: number;
  readonly #end: number;
  /** Tables met so far: one table has one place, so meeting it again means damage. */
  readonly #seen = new Set<number>();

  constructor(physical: PhysicalMemory, start: number, end: number) {
    this.#physical = physical;
    this.#start = start;
    this.#end = end;
  }

  enter(base: number, level: number, tableAddress: number): Step {
    if (this.#seen.has(base)) throw new ContainerError('page table', BigInt(base), 'is in the tree twice');
    this.#seen.add(base);
    const bytes = (PAGES_PER_ENTRY[level] ?? 1) * PAGE_SIZE;
    return {
      ...this.#physical.window(base, PAGE_SIZE),
      base,
      level,
      tableAddress,
      last: Math.min(511, Math.ceil((this.#end - tableAddress) / bytes) - 1),
      index: Math.max(0, Math.floor((this.#start - tableAddress) / bytes)),
    };
  }

  /** What a leaf entry maps of the range. */
  leaf(
    level: number,
    low: number,
    high: number,
    address: number,
  ): { -readonly [Key in keyof MappedRun]: MappedRun[Key] } {
    const bytes = (PAGES_PER_ENTRY[level] ?? 1) * PAGE_SIZE;
    const from = Math.max(address, this.#start);
    const found = {
      address: from,
      pages: (Math.min(address + bytes, this.#end) - from) / PAGE_SIZE,
      entryLow: low,
      entryHigh: high,
      pageSizeBytes: bytes,
    };
    if (!isPresent(low, level)) return { ...found, kind: 'swap', pfn: 0 };
    const frame = (low & PRESENT) !== 0 ? frameOf(low, high) : frameOf(~low >>> 0, ~high >>> 0);
    return {
      ...found,
      kind: 'present',
      pfn: (Math.floor(frame / bytes) * bytes + (from - address)) / PAGE_SIZE,
    };
  }
}

/**
 * The pages that a page table maps between two user addresses (page-aligned, `end` exclusive), in order, as runs. Pages never
 * touched are left out. Throws a ContainerError for a damaged tree, an AddressError for a table that is not in the dump.
 */
export function* walkPages(
  physical: PhysicalMemory,
  table: PageTable,
  start: number,
  end: number,
): Generator<MappedRun, void, undefined> {
  if (end <= start) return;
  const walk = new Walk(physical, start, end);
  const path = [walk.enter(table.root, table.levels, 0)];
  let run: ReturnType<Walk['leaf']> | undefined;
  for (let step = path.at(-1); step !== undefined; step = path.at(-1)) {
    const { data, offset, level, index } = step;
    if (index > step.last) {
      path.pop();
      continue;
    }
    step.index++;
    const low = data.getUint32(offset + index * 8, true);
    const high = data.getUint32(offset + index * 8 + 4, true);
    if (low === 0 && high === 0) continue;
    const address = step.tableAddress + index * (PAGES_PER_ENTRY[level] ?? 1) * PAGE_SIZE;
    if (level > 1 && (low & PRESENT) !== 0 && (low & HUGE) === 0) {
      path.push(walk.enter(frameOf(low, high), level - 1, address));
      continue;
    }
    if (level > 3) throw new ContainerError('page table', BigInt(step.base), `has a leaf at level ${level}`);
    const next = walk.leaf(level, low, high, address);
    if (run !== undefined && continues(run, next)) run.pages += next.pages;
    else {
      if (run !== undefined) yield run;
      run = next;
    }
  }
  if (run !== undefined) yield run;
}

/** The same for a process: `pgd` is `mm_struct.pgd`, a direct-map address. */
export function walkUserPages(
  kernel: Kernel,
  pgd: bigint,
  start: number,
  end: number,
): Generator<MappedRun, void, undefined> {
  return walkPages(kernel.physical, kernel.memory.userTable(pgd), start, end);
}
