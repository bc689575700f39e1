import type { PageDescriptors } from '../linux/page.ts';
import type { PageRun } from '../model/memory.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type PageRun as MappedRun, walkUserPages } from '../vmcore/page-table.ts';

const PAGE = 4096;

/** What the page tables say about one area. */
export interface AreaPages {
  /** Pages of the process's own, by rising address. */
  readonly runs: readonly PageRun[];
  /** Number of pages in `runs`. */
  readonly own: number;
  /** Pages that are the file's, or zeros. */
  readonly others: number;
  /** First address that has something else than a page (swapped out, being migrated, poisoned), and how many. */
  readonly notPresent: { readonly pages: number; readonly first: number; readonly type: number } | undefined;
  /** A sentence about the first frame that does not belong where the page tables have it. */
  readonly wrong: string | undefined;
}

/** How pages of an area have to look to be believed. */
export interface AreaShape {
  readonly start: number;
  readonly end: number;
  /** vm_pgoff: page index of the area's start. */
  readonly pgoff: number;
  /** Whether the area is a private mapping of a file, where pages of the file are to be expected. */
  readonly ofFile: boolean;
}

class Collector {
  readonly #shape: AreaShape;
  readonly #pages: PageDescriptors;
  readonly runs: { address: number; pages: number; physical: number }[] = [];
  own = 0;
  others = 0;
  missing = 0;
  firstMissing: MappedRun | undefined;
  wrong: string | undefined;

  constructor(shape: AreaShape, pages: PageDescriptors) {
    this.#shape = shape;
    this.#pages = pages;
  }

  visit(run: MappedRun): void {
    if (run.kind === 'swap') {
      this.missing += run.pages;
      this.firstMissing ??= run;
      return;
    }
    for (let i = 0; i < run.pages; i++) this.#page(run.address + i * PAGE, run.pfn + i);
  }

  #page(address: number, pfn: number): void {
    if (this.#pages.isZeroPage(pfn)) {
      this.others++;
      return;
    }
    const owner = this.#pages.ownerOf(pfn);
    if (owner.kind === 'anonymous') {
      const index = (address - this.#shape.start) / PAGE + this.#shape.pgoff;
      if (owner.index !== undefined && owner.index !== index) {
        this.wrong ??= `the page at 0x${address.toString(16)} belongs to place ${owner.index}, not ${index}`;
      }
      this.#add(address, pfn);
    } else if (owner.kind === 'cache' && this.#shape.ofFile) {
      this.others++;
    } else {
      this.wrong ??= `the frame at 0x${address.toString(16)} is no anonymous memory`;
    }
  }

  #add(address: number, pfn: number): void {
    this.own++;
    const last = this.runs.at(-1);
    if (
      last !== undefined &&
      last.address + last.pages * PAGE === address &&
      last.physical + last.pages * PAGE === pfn * PAGE
    ) {
      last.pages++;
    } else {
      this.runs.push({ address, pages: 1, physical: pfn * PAGE });
    }
  }
}

/** Type of a swap entry: the top five bits (arch/x86/include/asm/pgtable_64.h). */
function swapType(run: MappedRun): number {
  return run.entryHigh >>> 27;
}

/**
 * Pages of a private area that are not in its file: walks the page tables and checks each frame against its descriptor, which
 * knows whether it is anonymous memory and its place in the area. Throws a VmcoreError for damaged tables.
 */
export function privatePages(
  kernel: Kernel,
  pgd: bigint,
  shape: AreaShape,
  descriptors: PageDescriptors,
): AreaPages {
  const collector = new Collector(shape, descriptors);
  walkUserPages(kernel, pgd, shape.start, shape.end, (run) => collector.visit(run));
  const { firstMissing, missing } = collector;
  return {
    runs: collector.runs,
    own: collector.own,
    others: collector.others,
    notPresent:
      firstMissing === undefined
        ? undefined
        : { pages: missing, first: firstMissing.address, type: swapType(firstMissing) },
    wrong: collector.wrong,
  };
}
