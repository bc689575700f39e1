import type { AddressSpace, PageOverride, SharedMemory } from '../../model/memory.ts';
import type { PhysicalRun } from '../../model/open-file.ts';
import type { PageRun } from '../../model/page-runs.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { type ImageDirectory, type ImageFile, MAX_RUNS, type PageSource } from './image.ts';
import { PagemapEntrySchema, PagemapHeadSchema } from './proto/gen/pagemap_pb.ts';
import { isPrivate } from './vma.ts';

/** `flags` of a pagemap entry: the pages are in the store. */
const PE_PRESENT = 4;

/** Consecutive pages and where they come from: old memory, or bytes that replace it. */
interface Piece {
  readonly address: number;
  readonly pages: number;
  readonly from: { readonly physical: number } | { readonly bytes: Uint8Array };
}

function cutRun(run: PageRun, from: number, to: number): Piece | undefined {
  const start = Math.max(run.address, from);
  const end = Math.min(run.address + run.pages * PAGE_SIZE, to);
  if (start >= end) return undefined;
  return {
    address: start,
    pages: (end - start) / PAGE_SIZE,
    from: { physical: run.physical + (start - run.address) },
  };
}

/** Runs with the replaced pages taken out, and the replacements put in their places. */
function* pieces(runs: Iterable<PageRun>, overrides: readonly PageOverride[]): Generator<Piece> {
  let next = 0;
  for (const run of runs) {
    let at = run.address;
    const end = run.address + run.pages * PAGE_SIZE;
    while (next < overrides.length && overrides[next]!.address < end) {
      const { address, bytes } = overrides[next]!;
      const before = cutRun(run, at, address);
      if (before !== undefined) yield before;
      yield { address, pages: bytes.length / PAGE_SIZE, from: { bytes } };
      at = Math.max(at, address + bytes.length);
      next++;
    }
    const rest = cutRun(run, at, end);
    if (rest !== undefined) yield rest;
  }
  for (; next < overrides.length; next++) {
    const { address, bytes } = overrides[next]!;
    yield { address, pages: bytes.length / PAGE_SIZE, from: { bytes } };
  }
}

/**
 * Areas and replacements are both in the order of their addresses.
 * @throws Error if the replacements are not: a page would be the old one
 */
function* privatePieces({ vmas, overrides = [] }: AddressSpace): Generator<Piece> {
  for (const [i, { address }] of overrides.entries()) {
    const before = overrides[i - 1];
    if (before !== undefined && before.address + before.bytes.length > address)
      throw new Error(`replaced memory at 0x${address.toString(16)} is not in order`);
  }
  let next = 0;
  for (const vma of vmas.filter(isPrivate)) {
    while (next < overrides.length && overrides[next]!.address < vma.start) next++;
    const first = next;
    while (next < overrides.length && overrides[next]!.address < vma.end) next++;
    yield* pieces(vma.runs, overrides.slice(first, next));
  }
}

function* piecesUpTo(runs: Iterable<PageRun>, limit: number): Generator<Piece> {
  for (const run of runs) {
    const piece = cutRun(run, 0, limit);
    if (piece !== undefined) yield piece;
  }
}

/** A store of pages; without a file it has been written already. */
type Store = { readonly pagesId: number; readonly store: ImageFile | undefined };

function writePages(
  source: PageSource,
  pagemap: ImageFile,
  { pagesId, store }: Store,
  all: Iterable<Piece>,
): void {
  pagemap.entry(PagemapHeadSchema, { pagesId });
  let entry: { vaddr: number; nrPages: number } | undefined;
  const flush = () => {
    if (entry === undefined) return;
    const { vaddr, nrPages } = entry;
    pagemap.entry(PagemapEntrySchema, { vaddr: BigInt(vaddr), nrPages, flags: PE_PRESENT });
  };
  let batch: PhysicalRun[] = [];
  const writeBatch = () => {
    store?.runs(source, batch);
    batch = [];
  };
  for (const { address, pages, from } of all) {
    if (entry !== undefined && entry.vaddr + entry.nrPages * PAGE_SIZE === address) entry.nrPages += pages;
    else {
      flush();
      entry = { vaddr: address, nrPages: pages };
    }
    if ('bytes' in from) {
      writeBatch();
      store?.bytes(from.bytes);
    } else {
      batch.push({ physical: from.physical, length: pages * PAGE_SIZE });
      if (batch.length >= MAX_RUNS) writeBatch();
    }
  }
  flush();
  writeBatch();
}

/** Stores (`pages_id`) of address spaces that have no overrides, by `storeKey`. */
export type PrivateStores = Map<string, number>;

/** Tells two address spaces apart that have not the same private areas, with as many pages in each. */
function shapeOf({ vmas }: AddressSpace): string {
  return vmas
    .filter(isPrivate)
    .map(({ start, end, runs }) => `${start}-${end} ${runs.pages}`)
    .join();
}

function originalOf({ copyOf, id }: AddressSpace): number {
  return copyOf ?? id;
}

/** What address spaces have in common that share a store; undefined for one that has a store to itself. */
export function storeKey(memory: AddressSpace): string | undefined {
  return (memory.overrides ?? []).length === 0 ? `${originalOf(memory)} ${shapeOf(memory)}` : undefined;
}

/**
 * Writes `pagemap-PID.img` and its store for the private pages of an address space. The store of a copy is
 * that of the original, if that is among `stores`.
 */
export function writePrivatePages(
  images: ImageDirectory,
  source: PageSource,
  pid: number,
  memory: AddressSpace,
  stores: PrivateStores = new Map(),
): void {
  const key = storeKey(memory);
  const known = key === undefined ? undefined : stores.get(key);
  const store = known === undefined ? images.newPages() : { pagesId: known, store: undefined };
  writePages(source, images.image('pagemap', pid), store, privatePieces(memory));
  if (key !== undefined) stores.set(key, store.pagesId);
}

/** The same for the pages of a shared memory, in `pagemap-shmem-SHMID.img`, as far as `sizeBytes`. */
export function writeSharedPages(
  images: ImageDirectory,
  source: PageSource,
  { shmid, runs }: SharedMemory,
  sizeBytes: number,
): void {
  writePages(source, images.image('pagemap-shmem', shmid), images.newPages(), piecesUpTo(runs, sizeBytes));
}
