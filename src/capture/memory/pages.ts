import type { PageTableFormat } from '../../arch/index.ts';
import type { OwnedFrames, PageDescriptors } from '../../linux/readers/page-owner.ts';
import { type SwapEntries, swapEntriesOf } from '../../linux/readers/swap-entries.ts';
import { foundRuns, joinRuns, type PageRun, type PageRuns } from '../../model/page-runs.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { type MappedRun, walkUserPages } from '../../vmcore/page-table.ts';

/** What the page tables say about one area. */
export interface AreaPages {
  /** Pages of the process's own, in swap or in memory. */
  readonly runs: PageRuns;
  /** How many of them the page tables have as present. */
  readonly resident: number;
  /** Entries of swap areas, whether their pages can be had or not. */
  readonly swapped: number;
  /** Pages that are the file's, or zeros. */
  readonly others: number;
  /** What has no page that can be had: swapped out, being migrated, poisoned. */
  readonly notPresent: NotPresent | undefined;
  /** A sentence about the first frame that does not belong where the page tables have it. */
  readonly wrong: string | undefined;
}

/** Pages that are not in memory, and cannot be had from where they are. */
export interface NotPresent {
  readonly pages: number;
  readonly first: number;
  /** All of them are in swap. */
  readonly isSwap: boolean;
  /** Why the first cannot be had; undefined for what is no page in swap. */
  readonly why: string | undefined;
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

/** What one walk over the page tables found. */
class Tally {
  readonly #shape: AreaShape;
  readonly #swap: SwapEntries;
  readonly #format: PageTableFormat;
  resident = 0;
  /** Of the swapped ones, those that can be had. */
  found = 0;
  swapped = 0;
  others = 0;
  missing: NotPresent | undefined;
  wrong: string | undefined;

  constructor(kernel: Kernel, shape: AreaShape) {
    this.#shape = shape;
    this.#swap = swapEntriesOf(kernel);
    this.#format = kernel.architecture.pageTable;
  }

  /** The address of the page behind an entry that is not present; undefined if it cannot be had. */
  notPresent({ address, pages, pageSizeBytes, entryLow, entryHigh }: MappedRun): number | undefined {
    const type = this.#format.swapType(entryHigh);
    // Huge pages are cut up before they are swapped out: a huge entry is of one that is being moved.
    const isSwap = pageSizeBytes === PAGE_SIZE && this.#swap.isArea(type);
    let why: string | undefined;
    if (isSwap) {
      this.swapped++;
      const slot = this.#format.swapSlot(entryLow, entryHigh);
      const found =
        slot === undefined ? undefined : this.#swap.addressOf(type, slot, 'process', this.#place(address));
      if (found !== undefined) {
        this.found++;
        return found;
      }
      why = slot === undefined ? 'its entry in the page table is damaged' : this.#swap.why;
    }
    const before = this.missing ?? { pages: 0, first: address, isSwap: true, why };
    this.missing = { ...before, pages: before.pages + pages, isSwap: before.isSwap && isSwap };
    return undefined;
  }

  /** `linear_page_index` of an address. */
  #place(address: number): number {
    return (address - this.#shape.start) / PAGE_SIZE + this.#shape.pgoff;
  }

  /** Counts frames; returns whether they are the process's own. */
  frames(address: number, { owner, index, frames }: OwnedFrames): boolean {
    if (owner === 'zeros' || (owner === 'cache' && this.#shape.ofFile)) {
      this.others += frames;
      return false;
    }
    if (owner !== 'anonymous' && owner !== 'merged') {
      this.wrong ??= `the frame at 0x${address.toString(16)} is no anonymous memory`;
      return false;
    }
    const place = this.#place(address);
    if (owner === 'anonymous' && index !== place) {
      this.wrong ??= `the page at 0x${address.toString(16)} belongs to place ${index}, not ${place}`;
    }
    this.resident += frames;
    return true;
  }
}

/**
 * Pages of a private area that are not in its file: walks the page tables and checks each frame against its
 * descriptor, which knows whether it is anonymous memory and its place in the area. Entries of swap areas are
 * followed to the swap cache or to the area. Throws a VmcoreError for
 * damaged tables.
 */
export function privatePages(
  kernel: Kernel,
  pgd: bigint,
  shape: AreaShape,
  descriptors: PageDescriptors,
): AreaPages {
  function* own(tally: Tally): Generator<PageRun> {
    for (const run of walkUserPages(kernel, pgd, shape.start, shape.end)) {
      if (run.kind === 'swap') {
        const physical = tally.notPresent(run);
        if (physical !== undefined) yield { address: run.address, pages: 1, physical };
        continue;
      }
      for (let done = 0; done < run.pages; ) {
        const found = descriptors.ownerOf(run.pfn + done, run.pages - done);
        const [address, physical] = [run.address + done * PAGE_SIZE, (run.pfn + done) * PAGE_SIZE];
        if (tally.frames(address, found)) yield { address, pages: found.frames, physical };
        done += found.frames;
      }
    }
  }
  const tally = new Tally(kernel, shape);
  for (const _ of own(tally));
  const { missing: notPresent, resident, swapped, others, wrong } = tally;
  const what = `the memory area at 0x${shape.start.toString(16)}`;
  const runs = foundRuns(what, resident + tally.found, () => joinRuns(own(new Tally(kernel, shape))));
  return { runs, resident, swapped, others, notPresent, wrong };
}
