import type { PageTable, PageTableFormat } from '../arch/index.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError } from './errors.ts';
import type { PhysicalMemory } from './physical.ts';

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

/**
 * The number of the page that holds a virtual address: the address without its low 12 bits and its sign
 * (below 2^45, so it fits a number).
 */
export function pageNumber(address: bigint): number {
  return Number((address >> 12n) & 0x1fff_ffff_ffffn);
}

/**
 * Physical address of a page (its number) of the kernel's own addresses, or undefined if it is not mapped: in
 * the kernel's tables a page that is not present is none, whatever else its entry says (KFENCE takes pages
 * away so). Memory of a process is for {@link walkPages}. Throws an AddressError if a table is not in the
 * dump.
 * @param tables gets the physical address of each table on the way
 */
export function translateKernelPage(
  physical: PhysicalMemory,
  table: PageTable,
  page: number,
  tables?: Set<number>,
): number | undefined {
  const { format } = table;
  let base = table.root;
  for (let level = table.levels; level >= 1; level--) {
    tables?.add(base);
    const span = format.pagesPerEntry[level] ?? 1;
    const index = Math.floor(page / span) % format.entries;
    const { data, offset } = physical.window(base + index * 8, 8);
    const low = data.getUint32(offset, true);
    const high = data.getUint32(offset + 4, true);
    if (!format.isValid(low)) return undefined;
    const frame = format.frame(low, high);
    if (level === 1) return frame;
    if (!format.isTable(low, level)) {
      if (level > format.largestPageLevel)
        throw new ContainerError('page table', BigInt(base), `has a huge page at level ${level}`);
      const bytes = span * PAGE_SIZE;
      return frame - (frame % bytes) + (page % span) * PAGE_SIZE;
    }
    base = frame;
  }
  return undefined;
}

/** Whether `next` goes on where `run` ends, with the same flags. */
function continues(format: PageTableFormat, run: MappedRun, next: MappedRun): boolean {
  return (
    run.kind === 'present' &&
    next.kind === 'present' &&
    run.pageSizeBytes === next.pageSizeBytes &&
    run.address + run.pages * PAGE_SIZE === next.address &&
    run.pfn + run.pages === next.pfn &&
    format.isAlike(run.entryLow, run.entryHigh, next.entryLow, next.entryHigh)
  );
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

class TableWalk {
  readonly #physical: PhysicalMemory;
  readonly #format: PageTableFormat;
  readonly #start: number;
  readonly #end: number;
  /** Tables met so far: one table has one place, so meeting it again means damage. */
  readonly #seen = new Set<number>();

  constructor(physical: PhysicalMemory, format: PageTableFormat, start: number, end: number) {
    this.#physical = physical;
    this.#format = format;
    this.#start = start;
    this.#end = end;
  }

  enter(base: number, level: number, tableAddress: number): Step {
    if (this.#seen.has(base)) throw new ContainerError('page table', BigInt(base), 'is in the tree twice');
    this.#seen.add(base);
    const bytes = (this.#format.pagesPerEntry[level] ?? 1) * PAGE_SIZE;
    return {
      ...this.#physical.window(base, PAGE_SIZE),
      base,
      level,
      tableAddress,
      last: Math.min(this.#format.entries - 1, Math.ceil((this.#end - tableAddress) / bytes) - 1),
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
    const bytes = (this.#format.pagesPerEntry[level] ?? 1) * PAGE_SIZE;
    const from = Math.max(address, this.#start);
    const found = {
      address: from,
      pages: (Math.min(address + bytes, this.#end) - from) / PAGE_SIZE,
      entryLow: low,
      entryHigh: high,
      pageSizeBytes: bytes,
    };
    if (!this.#format.isPresent(low, level)) return { ...found, kind: 'swap', pfn: 0 };
    const frame = this.#format.frame(low, high);
    return {
      ...found,
      kind: 'present',
      pfn: (Math.floor(frame / bytes) * bytes + (from - address)) / PAGE_SIZE,
    };
  }
}

/**
 * The pages that a page table maps between two user addresses (page-aligned, `end` exclusive), in order, as
 * runs. Pages never touched are left out. Throws a ContainerError for a damaged tree, an AddressError for a
 * table that is not in the dump.
 */
export function* walkPages(
  physical: PhysicalMemory,
  table: PageTable,
  start: number,
  end: number,
): Generator<MappedRun, void, undefined> {
  if (end <= start) return;
  const { format } = table;
  const walk = new TableWalk(physical, format, start, end);
  const path = [walk.enter(table.root, table.levels, 0)];
  let run: ReturnType<TableWalk['leaf']> | undefined;
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
    const address = step.tableAddress + index * (format.pagesPerEntry[level] ?? 1) * PAGE_SIZE;
    if (format.isTable(low, level)) {
      path.push(walk.enter(format.frame(low, high), level - 1, address));
      continue;
    }
    if (level > format.largestPageLevel)
      throw new ContainerError('page table', BigInt(step.base), `has a leaf at level ${level}`);
    const next = walk.leaf(level, low, high, address);
    if (run !== undefined && continues(format, run, next)) run.pages += next.pages;
    else {
      if (run !== undefined) yield run;
      run = next;
    }
  }
  if (run !== undefined) yield run;
}

/** What leads to the page tables of processes: a `Kernel` has it. */
export interface PageTables {
  readonly physical: PhysicalMemory;
  readonly memory: { userTable(pgd: bigint): PageTable };
}

/** The same for a process: `pgd` is `mm_struct.pgd`, a direct-map address. */
export function walkUserPages(
  { physical, memory }: PageTables,
  pgd: bigint,
  start: number,
  end: number,
): Generator<MappedRun, void, undefined> {
  return walkPages(physical, memory.userTable(pgd), start, end);
}
