import { settled } from '../../../linux/container.ts';
import { type CachedState, cachedPages } from '../../../linux/pagemap.ts';
import { swapEntriesOf } from '../../../linux/readers/swap-entries.ts';
import { swappedPages } from '../../../linux/shmem.ts';
import { swapEntry } from '../../../linux/swap.ts';
import { foundRuns, joinRuns, type PageRun, type PageRuns } from '../../../model/page-runs.ts';
import { PAGE_SIZE } from '../../../system/page.ts';
import { ChangingError, ContainerError, hex } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';

/** Which pages of a file the page cache holds. */
export interface PageCache {
  /**
   * Pages whose content is valid (PG_uptodate), and those of shared memory that are in swap; `address` of a
   * run is the byte offset in the file.
   */
  readonly runs: PageRuns;
  /** Of these, those that the disk does not have yet (dirty, or on their way there), and the others. */
  readonly unwritten: PageRuns;
  readonly written: PageRuns;
  /** Dirty pages of which only parts are valid (blocks smaller than a page): their content cannot be told. */
  readonly partial: number;
  /** Pages of shared memory that are in swap and cannot be had, and why the first cannot. */
  readonly lost: { readonly pages: number; readonly why: string } | undefined;
}

/** Where a page of shared memory is that is in swap; undefined if it cannot be had. */
function addressOf(kernel: Kernel, entry: bigint, page: number): number | undefined {
  const { type, slot } = swapEntry(entry);
  return swapEntriesOf(kernel).addressOf(type, slot + page, 'shared');
}

/** Pages of one entry that are in swap and can be had. */
function* inSwap(kernel: Kernel, index: number, pages: number, entry: bigint): Generator<PageRun> {
  for (let i = 0; i < pages; i++) {
    const physical = addressOf(kernel, entry, i);
    if (physical !== undefined) yield { address: (index + i) * PAGE_SIZE, pages: 1, physical };
  }
}

/** Counts the pages in swap of a page cache. Throws a ContainerError if its inode or its entries disagree. */
class Swapped {
  found = 0;
  lost: { pages: number; why: string } | undefined;
  #all = 0;
  /** Slots in a row that the entries before had. */
  #row = { type: -1, first: 0, end: 0 };

  count(kernel: Kernel, mapping: bigint, pages: number, entry: bigint): void {
    const { type, slot } = swapEntry(entry);
    // A page that could not be read gets such an entry, and is not counted any more.
    if (!swapEntriesOf(kernel).isArea(type)) {
      this.#lose('a page could not be read from there, or is poisoned', pages);
      return;
    }
    this.#all += pages;
    this.#checkRow(mapping, type, slot, pages);
    for (let i = 0; i < pages; i++) {
      if (addressOf(kernel, entry, i) !== undefined) this.found++;
      else this.#lose(swapEntriesOf(kernel).why, 1);
    }
  }

  #lose(why: string, pages: number): void {
    this.lost = { why, ...this.lost, pages: (this.lost?.pages ?? 0) + pages };
  }

  /**
   * An entry for several pages that is cut up first becomes as many for its first slot, which then get their
   * own one after the other. Throws a ContainerError for one that has not.
   */
  #checkRow(mapping: bigint, type: number, slot: number, pages: number): void {
    const row = this.#row;
    if (type === row.type && slot < row.end && slot + pages > row.first)
      throw new ContainerError('page cache', mapping, `has slot ${slot} of swap area ${type} twice`);
    const goesOn = type === row.type && slot === row.end;
    this.#row = { type, first: goesOn ? row.first : slot, end: slot + pages };
  }

  /** An entry that was lost would read as zeros. */
  check(kernel: Kernel, mapping: bigint): void {
    const counted = swappedPages(kernel, mapping) ?? 0;
    if (counted === this.#all) return;
    const problem = `has ${this.#all} pages in swap but counts ${counted}`;
    throw new ContainerError('page cache', mapping, problem);
  }
}

/**
 * The page cache of an `address_space`. Throws a ContainerError if it is damaged; `isShmem` as for
 * `cachedPages`.
 */
export function pageCache(kernel: Kernel, mapping: bigint, isShmem: boolean): PageCache {
  return settled(kernel, () => readPageCache(kernel, mapping, isShmem));
}

/** Runs that a living kernel has more or fewer of by now are no fault of who finds them. */
function* asCounted(mapping: bigint, pages: number, runs: Iterable<PageRun>): Generator<PageRun> {
  let found = 0;
  for (const run of runs) {
    found += run.pages;
    yield run;
  }
  if (found !== pages)
    throw new ChangingError(
      new ContainerError('page cache', mapping, `has ${found} pages, and had ${pages} before`),
    );
}

function readPageCache(kernel: Kernel, mapping: bigint, isShmem: boolean): PageCache {
  const count = { unwritten: 0, written: 0, partial: 0, swapped: 0 };
  const swapped = new Swapped();
  for (const { pages, state, swapEntry } of cachedPages(kernel, mapping, isShmem)) {
    if (swapEntry === undefined) count[state] += pages;
    else swapped.count(kernel, mapping, pages, swapEntry);
  }
  if (isShmem) swapped.check(kernel, mapping);
  count.swapped = swapped.found;
  const runsOf = (...states: readonly CachedState[]): PageRuns => {
    function* runs(): Generator<PageRun> {
      for (const { index, pages, state, physical, swapEntry } of cachedPages(kernel, mapping, isShmem)) {
        if (!states.includes(state)) continue;
        if (swapEntry !== undefined) yield* inSwap(kernel, index, pages, swapEntry);
        else yield { address: index * PAGE_SIZE, pages, physical };
      }
    }
    const pages = states.reduce((sum, state) => sum + count[state], 0);
    const found = () => (kernel.isAlive ? asCounted(mapping, pages, runs()) : runs());
    return foundRuns(`the page cache ${hex(mapping)}`, pages, () => joinRuns(found()));
  };
  return {
    runs: runsOf('unwritten', 'written', 'swapped'),
    unwritten: runsOf('unwritten'),
    written: runsOf('written'),
    partial: count.partial,
    lost: swapped.lost,
  };
}
