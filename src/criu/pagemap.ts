import type { AddressSpace, PageOverride, SharedMemory } from '../model/memory.ts';
import type { PageRun } from '../model/page-runs.ts';
import { PAGE_SIZE, pageEnd } from '../system/page.ts';
import { type ImageDirectory, type ImageFile, MAX_RUNS, type PageSource, type PhysicalRun } from './image.ts';
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

function* privatePieces({ vmas, overrides = [] }: AddressSpace): Generator<Piece> {
  for (const vma of vmas.filter(isPrivate)) {
    yield* pieces(
      vma.runs,
      overrides.filter(({ address }) => address >= vma.start && address < vma.end),
    );
  }
}

function* piecesUpTo(runs: Iterable<PageRun>, limit: number): Generator<Piece> {
  for (const run of runs) {
    const piece = cutRun(run, 0, limit);
    if (piece !== undefined) yield piece;
  }
}

/** Numbers the page stores of a group: `pages-1.img`, `pages-2.img` ... */
export class PageStores {
  readonly #images: ImageDirectory;
  readonly #source: PageSource;
  #lastId = 0;
  /** Bytes stored so far. */
  sizeBytes = 0;

  constructor(images: ImageDirectory, source: PageSource) {
    this.#images = images;
    this.#source = source;
  }

  /** Writes `pagemap-PID.img` and its store for the private pages of an address space. */
  writeProcess(pid: number, memory: AddressSpace): void {
    this.#write(this.#images.image('pagemap', pid), privatePieces(memory));
  }

  /** The same for shared memory, as far as anybody maps it: CRIU refuses pages beyond that. */
  writeSharedMemory(memory: SharedMemory, mappedBytes: number): void {
    const limit = memory.origin === 'memfd' ? pageEnd(memory.sizeBytes) : mappedBytes;
    this.#write(this.#images.image('pagemap-shmem', memory.shmid), piecesUpTo(memory.runs, limit));
  }

  #write(pagemap: ImageFile, all: Iterable<Piece>): void {
    const pagesId = ++this.#lastId;
    const store = this.#images.pages(pagesId);
    pagemap.entry(PagemapHeadSchema, { pagesId });
    let entry: { vaddr: number; nrPages: number } | undefined;
    const flush = () => {
      if (entry === undefined) return;
      const { vaddr, nrPages } = entry;
      pagemap.entry(PagemapEntrySchema, { vaddr: BigInt(vaddr), nrPages, flags: PE_PRESENT });
    };
    let batch: PhysicalRun[] = [];
    const writeBatch = () => {
      store.runs(this.#source, batch);
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
        store.bytes(from.bytes);
      } else {
        batch.push({ physical: from.physical, length: pages * PAGE_SIZE });
        if (batch.length >= MAX_RUNS) writeBatch();
      }
    }
    flush();
    writeBatch();
    this.sizeBytes += store.sizeBytes;
  }
}
