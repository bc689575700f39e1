import { type CachedState, cachedPages } from '../../linux/pagemap.ts';
import { foundRuns, joinRuns, type PageRun, type PageRuns } from '../../model/page-runs.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { hex } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/** Which pages of a file the page cache holds. */
export interface PageCache {
  /** Pages whose content is valid (PG_uptodate); `address` of a run is the byte offset in the file. */
  readonly runs: PageRuns;
  /** Of these, those that the disk does not have yet (dirty, or on their way there), and the others. */
  readonly unwritten: PageRuns;
  readonly written: PageRuns;
  /** Dirty pages of which only parts are valid (blocks smaller than a page): their content cannot be told. */
  readonly partial: number;
  /** Pages of shared memory that are in swap. */
  readonly swapped: number;
}

/**
 * The page cache of an `address_space`. Throws a ContainerError if it is damaged; `isShmem` as for
 * `cachedPages`.
 */
export function pageCache(kernel: Kernel, mapping: bigint, isShmem: boolean): PageCache {
  const count = { unwritten: 0, written: 0, partial: 0, swapped: 0 };
  for (const { pages, state } of cachedPages(kernel, mapping, isShmem)) count[state] += pages;
  const runsOf = (...states: readonly CachedState[]): PageRuns => {
    function* runs(): Generator<PageRun> {
      for (const { index, pages, state, physical } of cachedPages(kernel, mapping, isShmem)) {
        if (states.includes(state)) yield { address: index * PAGE_SIZE, pages, physical };
      }
    }
    const pages = states.reduce((sum, state) => sum + count[state], 0);
    return foundRuns(`the page cache ${hex(mapping)}`, pages, () => joinRuns(runs()));
  };
  return {
    runs: runsOf('unwritten', 'written'),
    unwritten: runsOf('unwritten'),
    written: runsOf('written'),
    partial: count.partial,
    swapped: count.swapped,
  };
}
