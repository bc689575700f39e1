import { ContainerError } from './errors.ts';
import type { Kernel } from './kernel.ts';
import type { PhysicalMemory } from './physical.ts';

const PAGE = 4096;
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
export interface PageRun {
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
  return (high & FRAME_HIGH) * WORD + (low - (low % PAGE));
}

/**
 * Physical address of a virtual page, or undefined if it is not mapped. `page` is the address without its low
 * 12 bits, shifted (below 2^45, so it fits a number). Throws an AddressError if a table is not in the dump.
 */
export function translatePage(physical: PhysicalMemory, table: PageTable, page: number): number | undefined {
  let base = table.root;
  for (let level = table.levels; level >= 1; level--) {
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
      const bytes = span * PAGE;
      return frame - (frame % bytes) + (page % span) * PAGE;
    }
    base = frame;
  }
  return undefined;
}

type Visit = (run: PageRun) => void;

/** Collects single entries into runs before they are handed on. */
class RunBuilder {
  readonly #visit: Visit;
  #run: PageRun | undefined;

  constructor(visit: Visit) {
    this.#visit = visit;
  }

  add(next: PageRun): void {
    const run = this.#run;
    if (run !== undefined && continues(run, next)) {
      this.#run = { ...run, pages: run.pages + next.pages };
      return;
    }
    this.flush();
    this.#run = next;
  }

  flush(): void {
    const run = this.#run;
    this.#run = undefined;
    if (run !== undefined) this.#visit(run);
  }
}

/** Whether `next` goes on where `run` ends, with the same flags but for accessed and soft-dirty. */
function continues(run: PageRun, next: PageRun): boolean {
  return (
    run.kind === 'present' &&
    next.kind === 'present' &&
    run.pageSizeBytes === next.pageSizeBytes &&
    run.address + run.pages * PAGE === next.address &&
    run.pfn + run.pages === next.pfn &&
    ((run.entryLow ^ next.entryLow) & RUN_FLAGS) === 0 &&
    run.entryHigh >>> 20 === next.entryHigh >>> 20
  );
}

interface Walk {
  readonly physical: PhysicalMemory;
  /** Tables on the way so far: one table has one place, so meeting it again means damage. */
  readonly seen: Set<number>;
  readonly start: number;
  readonly end: number;
  readonly runs: RunBuilder;
}

/** Whether an entry maps a page, as pte_present() says. A huge entry that is being split counts too. */
function isPresent(low: number, level: number): boolean {
  return (low & (level > 1 ? PRESENT | PROTNONE | HUGE : PRESENT | PROTNONE)) !== 0;
}

function visitEntry(walk: Walk, level: number, low: number, high: number, address: number): void {
  const bytes = (PAGES_PER_ENTRY[level] ?? 1) * PAGE;
  const from = Math.max(address, walk.start);
  const pages = (Math.min(address + bytes, walk.end) - from) / PAGE;
  if (!isPresent(low, level)) {
    walk.runs.add({
      address: from,
      pages,
      kind: 'swap',
      pfn: 0,
      entryLow: low,
      entryHigh: high,
      pageSizeBytes: bytes,
    });
    return;
  }
  const frame = (low & PRESENT) !== 0 ? frameOf(low, high) : frameOf(~low >>> 0, ~high >>> 0);
  const pfn = (frame - (frame % bytes) + (from - address)) / PAGE;
  walk.runs.add({
    address: from,
    pages,
    kind: 'present',
    pfn,
    entryLow: low,
    entryHigh: high,
    pageSizeBytes: bytes,
  });
}

function walkTable(walk: Walk, base: number, level: number, tableAddress: number): void {
  if (walk.seen.has(base)) throw new ContainerError('page table', BigInt(base), 'is in the tree twice');
  walk.seen.add(base);
  const bytes = (PAGES_PER_ENTRY[level] ?? 1) * PAGE;
  const { data, offset } = walk.physical.window(base, PAGE);
  const first = Math.max(0, Math.floor((walk.start - tableAddress) / bytes));
  const last = Math.min(511, Math.ceil((walk.end - tableAddress) / bytes) - 1);
  for (let index = first; index <= last; index++) {
    const low = data.getUint32(offset + index * 8, true);
    const high = data.getUint32(offset + index * 8 + 4, true);
    if (low === 0 && high === 0) continue;
    const address = tableAddress + index * bytes;
    if (level > 1 && (low & PRESENT) !== 0 && (low & HUGE) === 0) {
      walkTable(walk, frameOf(low, high), level - 1, address);
    } else if (level > 3)
      throw new ContainerError('page table', BigInt(base), `has a leaf at level ${level}`);
    else visitEntry(walk, level, low, high, address);
  }
}

/**
 * Visits the pages that a page table maps between two user addresses (page-aligned, `end` exclusive), in order, as runs.
 * Pages never touched are not visited. Throws a ContainerError for a damaged tree, an AddressError for a table that is
 * not in the dump.
 */
export function walkPages(
  physical: PhysicalMemory,
  table: PageTable,
  start: number,
  end: number,
  visit: (run: PageRun) => void,
): void {
  if (end <= start) return;
  const runs = new RunBuilder(visit);
  walkTable({ physical, start, end, runs, seen: new Set() }, table.root, table.levels, 0);
  runs.flush();
}

/**
 * The same for a process: `pgd` is `mm_struct.pgd`, a direct-map address.
 */
export function walkUserPages(
  kernel: Kernel,
  pgd: bigint,
  start: number,
  end: number,
  visit: (run: PageRun) => void,
): void {
  walkPages(kernel.physical, kernel.memory.userTable(pgd), start, end, visit);
}
