import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { settled } from './container.ts';
import { addressSpaceStruct, fileStruct, fileSystemOf, inodeStruct } from './fs.ts';
import { pageFrames } from './mm.ts';
import { pageStruct } from './mm-types.ts';
import { xaIsValue, xaLoad, xaToValue, xaWalk } from './xarray.ts';

/** Entries of one page cache: a file of 4 TiB. */
const MAX_PAGES = 1 << 30;

/**
 * What the page cache has of a page:
 * - `unwritten`: its content, which the disk does not have yet (dirty, or on its way there);
 * - `written`: its content (PG_uptodate);
 * - `partial`: only part of its content, which is dirty (blocks smaller than a page): which part cannot be
 *   told;
 * - `swapped`: of shared memory, a place in swap.
 */
export type CachedState = 'unwritten' | 'written' | 'partial' | 'swapped';

/** Pages of one folio, or of one swap entry. */
export interface CachedPages {
  /** Index of the first in the file. */
  readonly index: number;
  readonly pages: number;
  readonly state: CachedState;
  /** Physical address of the first frame, for what is in memory; else 0. */
  readonly physical: number;
  /** Of what is in swap: `swp_entry_t` of the first page. Those of the others follow it. */
  readonly swapEntry?: bigint;
}

/**
 * The page cache of an `address_space`. Every page must point back to the address space and know its place in
 * it, and there must be as many as `nrpages` says, which counts base pages and no value entries. Throws a
 * ContainerError otherwise: a page that was lost would read as zeros, or as what the disk has. Shadow entries
 * are left out, and pages that are not there yet; `isShmem` tells that value entries are swap entries. It is
 * read once: who reads a living kernel reads it within `settled`.
 */
export function* cachedPages(kernel: Kernel, mapping: bigint, isShmem: boolean): Generator<CachedPages> {
  const space = kernel.bind(addressSpaceStruct).at(mapping);
  const Page = kernel.bind(pageStruct);
  const uptodate = kernel.enumerator('PG_uptodate');
  const dirtyBits = [kernel.enumerator('PG_dirty'), kernel.enumerator('PG_writeback')];
  let found = 0;
  for (const { index, span: pages, entry } of xaWalk(kernel, space.i_pages, MAX_PAGES, true)) {
    if (xaIsValue(entry)) {
      if (isShmem) yield { index, pages, state: 'swapped', physical: 0, swapEntry: xaToValue(entry) };
      continue;
    }
    const page = Page.at(entry);
    // While khugepaged puts a huge page together, up to 6.1 other places than its first hold it too, and its
    // content is not there yet.
    if (page.mapping !== mapping || page.index !== index) {
      throw new ContainerError('page cache', mapping, `holds a page at ${index} that does not belong there`);
    }
    found += pages;
    const pageFlags = page.flags;
    const isDirty = dirtyBits.some((bit) => pageFlags.has(bit));
    if (pageFlags.has(uptodate)) {
      const physical = pageFrames(kernel, entry, pages, 'page cache');
      yield { index, pages, state: isDirty ? 'unwritten' : 'written', physical };
    } else if (isDirty && !isShmem) {
      // Shared memory allocated by fallocate but never written is dirty and not up to date, too, and reads as
      // zeros.
      yield { index, pages, state: 'partial', physical: 0 };
    }
  }
  if (found !== space.nrpages) {
    throw new ContainerError('page cache', mapping, `holds ${found} pages but counts ${space.nrpages}`);
  }
}

/** Pages of the largest folio: 1 GiB. */
const MAX_FOLIO = 1 << 18;

/**
 * Where one page of a file is: in memory; nowhere, so that it reads as zeros; behind the end of the file; on
 * a disk or in swap.
 */
export type CachedPage =
  | { readonly kind: 'page'; readonly physical: number }
  | { readonly kind: 'hole' | 'behind-end' | 'elsewhere' };

/**
 * One page of an open file (its `struct file`), by its place in the file. Throws a VmcoreError if what leads
 * there is damaged.
 */
export function cachedPageOf(kernel: Kernel, file: bigint, index: number): CachedPage {
  return settled(kernel, () => readPageOf(kernel, file, index));
}

function readPageOf(kernel: Kernel, file: bigint, index: number): CachedPage {
  const { f_mapping: mapping } = kernel.bind(fileStruct).at(file);
  const space = kernel.bind(addressSpaceStruct).at(mapping);
  const inode = kernel.bind(inodeStruct).at(space.host);
  if (index * PAGE_SIZE >= inode.i_size) return { kind: 'behind-end' };
  const entry = xaLoad(kernel, space.i_pages, index);
  const withoutContent = (): CachedPage => ({
    kind: fileSystemOf(kernel, inode.i_sb).name === 'tmpfs' ? 'hole' : 'elsewhere',
  });
  if (entry === 0n) return withoutContent();
  if (xaIsValue(entry)) return { kind: 'elsewhere' };
  const page = kernel.bind(pageStruct).at(entry);
  const inFolio = index - page.index;
  if (page.mapping !== mapping || inFolio < 0 || inFolio >= MAX_FOLIO) {
    throw new ContainerError('page cache', mapping, `holds a page at ${index} that does not belong there`);
  }
  if (!page.flags.has(kernel.enumerator('PG_uptodate'))) return withoutContent();
  return {
    kind: 'page',
    physical: pageFrames(kernel, entry, inFolio + 1, 'page cache') + inFolio * PAGE_SIZE,
  };
}
