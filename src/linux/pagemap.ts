import { foundRuns, joinRuns, type PageRun, type PageRuns } from '../model/page-runs.ts';
import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct, ulongNumber } from '../vmcore/view.ts';
import { pageFrames } from './page-frame.ts';
import { xaForEach, xaIsValue } from './xarray.ts';

/** `struct address_space` (include/linux/fs.h): the page cache of an inode. */
const addressSpace = struct('address_space', {
  host: pointer,
  i_pages: addressOf('i_pages'),
  nrpages: ulongNumber,
  flags: ulongNumber,
});

const pageStruct = struct('page', {
  flags: ulongNumber.at('flags'),
  mapping: pointer.at('mapping'),
  index: ulongNumber.at('index'),
});

const PAGE_SIZE = 4096;
/** Entries of one page cache: a file of 4 TiB. */
const MAX_PAGES = 1 << 30;

/** Page flags by their number in VMCOREINFO or by their enumerator. */
function pageFlag(kernel: Kernel, name: string): number {
  return 2 ** kernel.enumerator(name);
}

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

/** What is known of pages in the cache. */
type PageState = 'unwritten' | 'written' | 'partial' | 'swapped';

interface CachedPages {
  readonly index: number;
  readonly pages: number;
  readonly state: PageState;
  /** Physical address of the first frame, for what is in memory. */
  readonly physical: number;
}

/** Goes through a page cache and checks it; throws as `pageCache`. */
function* cachedPages(kernel: Kernel, mapping: bigint, isShmem: boolean): Generator<CachedPages> {
  const space = kernel.bind(addressSpace).at(mapping);
  const Page = kernel.bind(pageStruct);
  const uptodate = pageFlag(kernel, 'PG_uptodate');
  const dirtyBits = [pageFlag(kernel, 'PG_dirty'), pageFlag(kernel, 'PG_writeback')];
  let found = 0;
  for (const { index, span: pages, entry } of xaForEach(kernel, space.i_pages, MAX_PAGES, true)) {
    if (xaIsValue(entry)) {
      if (isShmem) yield { index, pages, state: 'swapped', physical: 0 };
      continue;
    }
    const page = Page.at(entry);
    // While khugepaged puts a huge page together, up to 6.1 other places than its first hold it too, and its content is not there yet.
    if (page.mapping !== mapping || page.index !== index) {
      throw new ContainerError('page cache', mapping, `holds a page at ${index} that does not belong there`);
    }
    found += pages;
    const has = (bit: number) => Math.floor(page.flags / bit) % 2 === 1;
    const isDirty = dirtyBits.some(has);
    if (has(uptodate)) {
      const physical = pageFrames(kernel, entry, pages, 'page cache');
      yield { index, pages, state: isDirty ? 'unwritten' : 'written', physical };
    } else if (isDirty && !isShmem) {
      // Shared memory allocated by fallocate but never written is dirty and not up to date, too, and reads as zeros.
      yield { index, pages, state: 'partial', physical: 0 };
    }
  }
  if (found !== space.nrpages) {
    throw new ContainerError('page cache', mapping, `holds ${found} pages but counts ${space.nrpages}`);
  }
}

/**
 * The page cache of an `address_space`. Every page must point back to the address space and know its place in it, and there must be as
 * many as `nrpages` says, which counts base pages and no value entries. Throws a ContainerError otherwise: a page that was lost would read as
 * zeros, or as what the disk has. Shadow entries are left out; `isShmem` tells that value entries are swap entries.
 */
export function pageCache(kernel: Kernel, mapping: bigint, isShmem: boolean): PageCache {
  const count = { unwritten: 0, written: 0, partial: 0, swapped: 0 };
  for (const { pages, state } of cachedPages(kernel, mapping, isShmem)) count[state] += pages;
  const runsOf = (...states: readonly PageState[]): PageRuns => {
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
