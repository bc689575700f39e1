import { ContainerError } from '../vmcore/errors.ts';
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

/** A run of pages of a file that lie one after the other in memory. */
export interface CachedRun {
  /** Byte offset in the file. */
  readonly address: number;
  readonly pages: number;
  readonly physical: number;
}

/** Which pages of a file the page cache holds. */
export interface PageCache {
  /** Pages whose content is valid (PG_uptodate), ascending. */
  readonly runs: readonly CachedRun[];
  /** Of these, those that the disk does not have yet (dirty, or on their way there), and the others. */
  readonly unwritten: readonly CachedRun[];
  readonly written: readonly CachedRun[];
  /** Dirty pages of which only parts are valid (blocks smaller than a page): their content cannot be told. */
  readonly partial: number;
  /** Pages of shared memory that are in swap. */
  readonly swapped: number;
  /** Pages in `runs`. */
  readonly cached: number;
}

class Runs {
  readonly list: { address: number; pages: number; physical: number }[] = [];
  pages = 0;

  add(index: number, pfn: number, pages: number): void {
    const last = this.list.at(-1);
    const [address, physical] = [index * PAGE_SIZE, pfn * PAGE_SIZE];
    this.pages += pages;
    if (
      last !== undefined &&
      last.address + last.pages * PAGE_SIZE === address &&
      last.physical + last.pages * PAGE_SIZE === physical
    ) {
      last.pages += pages;
    } else {
      this.list.push({ address, pages, physical });
    }
  }
}

/**
 * The page cache of an `address_space`. Every page must point back to the address space and know its place in it, and there must be as
 * many as `nrpages` says, which counts base pages and no value entries. Throws a ContainerError otherwise: a page that was lost would read as
 * zeros, or as what the disk has. Shadow entries are left out; `isShmem` tells that value entries are swap entries.
 */
export function pageCache(kernel: Kernel, mapping: bigint, isShmem: boolean): PageCache {
  const space = kernel.bind(addressSpace).at(mapping);
  const Page = kernel.bind(pageStruct);
  const uptodate = pageFlag(kernel, 'PG_uptodate');
  const dirtyBits = [pageFlag(kernel, 'PG_dirty'), pageFlag(kernel, 'PG_writeback')];
  const [runs, unwritten, written] = [new Runs(), new Runs(), new Runs()];
  let swapped = 0;
  let partial = 0;
  let found = 0;
  for (const { index, span, entry } of xaForEach(kernel, space.i_pages, MAX_PAGES, true)) {
    if (xaIsValue(entry)) {
      if (isShmem) swapped += span;
      continue;
    }
    const page = Page.at(entry);
    // While khugepaged puts a huge page together, up to 6.1 other places than its first hold it too, and its content is not there yet.
    if (page.mapping !== mapping || page.index !== index) {
      throw new ContainerError('page cache', mapping, `holds a page at ${index} that does not belong there`);
    }
    found += span;
    const has = (bit: number) => Math.floor(page.flags / bit) % 2 === 1;
    // Shared memory allocated by fallocate but never written is not up to date and reads as zeros.
    if (!has(uptodate)) {
      if (!isShmem && dirtyBits.some(has)) partial += span;
      continue;
    }
    const pfn = pageFrames(kernel, entry, span, 'page cache') / PAGE_SIZE;
    runs.add(index, pfn, span);
    (dirtyBits.some(has) ? unwritten : written).add(index, pfn, span);
  }
  if (found !== space.nrpages) {
    throw new ContainerError('page cache', mapping, `holds ${found} pages but counts ${space.nrpages}`);
  }
  return {
    runs: runs.list,
    unwritten: unwritten.list,
    written: written.list,
    partial,
    swapped,
    cached: runs.pages,
  };
}
