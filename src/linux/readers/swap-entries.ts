import { PAGE_SIZE } from '../../system/page.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { STORED } from '../../vmcore/stored-pages.ts';
import { addressSpaceStruct } from '../fs.ts';
import { type Page, pageStruct } from '../mm-types.ts';
import { MAX_SWAP_AREAS, SWAP_MAP, SWAP_SPACE_PAGES, swapEntry } from '../swap.ts';
import { XA_CHUNK, xaChunk, xaIsValue } from '../xarray.ts';
import { PAGE_MAPPING } from './page-owner.ts';
import { type SwapArea, SwapError, swapAreaAt, swapAreaCount, untriedSwap } from './swap-areas.ts';

/** Bytes of addresses for each area: its slots are numbered with 32 bits, and rarely with more than 30. */
const AREA_SPAN = STORED / MAX_SWAP_AREAS;
/** In the place of an area: pages that were all zeros. `swapAreaCount` takes care that no area has it. */
const ZEROS = MAX_SWAP_AREAS - 1;

/** Where stored bytes are: in an area, by the bytes of its slots, or nowhere, because they are zeros. */
export interface SwapPlace {
  /** Undefined for zeros. */
  readonly type: number | undefined;
  readonly offset: number;
}

/** The place that an address from {@link STORED} on stands for. */
export function swapPlace(address: number): SwapPlace {
  const type = Math.floor((address - STORED) / AREA_SPAN);
  return { type: type === ZEROS ? undefined : type, offset: (address - STORED) % AREA_SPAN };
}

/** The address of a slot's page. */
export function swapAddress(type: number, slot: number): number {
  return STORED + type * AREA_SPAN + slot * PAGE_SIZE;
}

/** Who has an entry: shared memory is not counted in the area's map, processes are. */
export type SwapOwner = 'process' | 'shared';

/** Whose entry it is. */
interface SwapUser {
  readonly owner: SwapOwner;
  readonly place: number | undefined;
}

/**
 * Whether a page of the swap cache may be of a user, by what its descriptor says. That says nothing (0) until
 * the page is mapped again, nor of a page merged by KSM, which has several places.
 */
function isOf({ owner, place }: SwapUser, mapping: bigint, index: number): boolean {
  if (Number(mapping & 3n) !== PAGE_MAPPING.anon) return true;
  return owner === 'process' && (place === undefined || place === index);
}

/** Chunks of slots that are remembered of one area: of 16 GiB, wherever the slots are that are asked for. */
const MAX_CHUNKS = 1 << 16;
/** A chunk of which the swap cache has no page: most are. */
const NO_PAGES = new BigUint64Array();

/** Bytes of kernel memory that are asked for one by one, in any order. */
class ScatteredBytes {
  readonly #kernel: Kernel;
  readonly #start: bigint;
  readonly #length: number;
  /** Pages that were looked at. Copied: a window may be gone when the next is looked at. */
  readonly #pieces = new Map<number, Uint8Array>();

  constructor(kernel: Kernel, start: bigint, length: number) {
    this.#kernel = kernel;
    this.#start = start;
    this.#length = length;
  }

  at(index: number): number {
    const piece = Math.floor(index / PAGE_SIZE);
    let bytes = this.#pieces.get(piece);
    if (bytes === undefined) {
      const length = Math.min(PAGE_SIZE, this.#length - piece * PAGE_SIZE);
      bytes = this.#kernel.memory.read(this.#start + BigInt(piece * PAGE_SIZE), length);
      this.#pieces.set(piece, bytes);
    }
    return bytes[index % PAGE_SIZE]!;
  }
}

/** One area, as far as its entries are looked up. */
class AreaEntries {
  readonly area: SwapArea;
  readonly #kernel: Kernel;
  readonly #map: ScatteredBytes;
  readonly #zeros: ScatteredBytes | undefined;
  readonly #spaces: bigint;
  readonly #spaceBytes: bigint;
  /** Pages of the caches, by the first slot of each chunk: slots may be asked for in any order. */
  readonly #chunks = new Map<number, BigUint64Array>();

  constructor(kernel: Kernel, type: number) {
    this.#kernel = kernel;
    this.area = swapAreaAt(kernel, type);
    const { swap_map, zeromap } = this.area.info;
    const { slots } = this.area;
    this.#map = new ScatteredBytes(kernel, swap_map, slots);
    const zeroBytes = Math.ceil(slots / 64) * 8;
    // Without it, slots that were never written would be read.
    if (zeromap === 0n) throw new SwapError(`the swap area ${this.area.name} is damaged: it has no zeromap`);
    if (zeromap !== undefined) this.#zeros = new ScatteredBytes(kernel, zeromap, zeroBytes);
    this.#spaces = kernel.memory.pointer(kernel.symbol('swapper_spaces') + BigInt(type * 8));
    this.#spaceBytes = BigInt(kernel.sizeOf('address_space'));
  }

  usage(slot: number): number {
    return this.#map.at(slot);
  }

  isZeros(slot: number): boolean {
    return this.#zeros !== undefined && ((this.#zeros.at(slot >>> 3) >>> (slot & 7)) & 1) === 1;
  }

  /**
   * The `struct page` that the swap cache has for a slot; 0n if none. An area has one cache for each 64 MiB,
   * which counts slots from its own first on since 6.11 or so, and before from the area's first. It is looked
   * at by both, because what the other release has not is never there.
   */
  cached(slot: number): bigint {
    const first = slot - (slot % XA_CHUNK);
    let chunk = this.#chunks.get(first);
    if (chunk === undefined) {
      if (this.#chunks.size >= MAX_CHUNKS) this.#chunks.clear();
      chunk = this.#chunkAt(first);
      this.#chunks.set(first, chunk);
    }
    return chunk === NO_PAGES ? 0n : chunk[slot - first]!;
  }

  #chunkAt(first: number): BigUint64Array {
    const kernel = this.#kernel;
    const number = Math.floor(first / SWAP_SPACE_PAGES);
    const space = this.#spaces + BigInt(number) * this.#spaceBytes;
    const { i_pages } = kernel.bind(addressSpaceStruct).at(space);
    const inSpace = xaChunk(kernel, i_pages, first % SWAP_SPACE_PAGES);
    const inArea = number === 0 ? inSpace : xaChunk(kernel, i_pages, first);
    const pages = inSpace.map((entry, i) => pageOf(entry) || pageOf(inArea[i] ?? 0n));
    return pages.every((page) => page === 0n) ? NO_PAGES : BigUint64Array.from(pages);
  }
}

/** What the cache remembers of a page that has left it is no page. */
function pageOf(entry: bigint): bigint {
  return xaIsValue(entry) ? 0n : entry;
}

/** Finds the pages behind swap entries: in the swap cache, in an area, or zeros. */
export class SwapEntries {
  readonly #kernel: Kernel;
  readonly #areas = new Map<number, AreaEntries | string>();
  #count: number | undefined;
  #isCompressing: boolean | undefined;
  /** Why the entry that was asked for last has no address; a sentence without its end. */
  why = '';

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /**
   * Whether a number is of a swap area; the kernel has others for what is no page in swap. All are if their
   * count cannot be read: then no entry has an address.
   */
  isArea(type: number): boolean {
    this.#count ??= readable(() => swapAreaCount(this.#kernel)) ?? MAX_SWAP_AREAS;
    return type < this.#count;
  }

  /**
   * The address of a page: of memory if the swap cache has its content (what is there may not be on the disk
   * yet), else one from STORED on. Undefined if it cannot be had: `why` tells the reason.
   * @param place of a process's page: its index in the area (`linear_page_index`), which a page in the cache
   * has to have; any if undefined
   */
  addressOf(type: number, slot: number, owner: SwapOwner, place?: number): number | undefined {
    this.why = '';
    try {
      return this.#find(type, slot, owner, place);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      this.why = error.message;
      return undefined;
    }
  }

  #find(type: number, slot: number, owner: SwapOwner, place?: number): number | undefined {
    const entries = this.#area(type);
    if (typeof entries === 'string') return this.#refuse(entries);
    const { name, slots } = entries.area;
    const refuse = (problem: string): undefined =>
      this.#refuse(`slot ${slot} of the swap area ${name} ${problem}`);
    if (slot < 1 || slot >= slots) return refuse(`is not within it (${slots})`);
    const usage = entries.usage(slot);
    const count = usage & ~SWAP_MAP.hasCache;
    const isCounted = owner === 'shared' ? count === SWAP_MAP.shmem : count !== SWAP_MAP.shmem;
    if (count === 0 || count === SWAP_MAP.bad || !isCounted)
      return refuse(`is not in use like that (0x${usage.toString(16)} in its map)`);
    const page = entries.cached(slot);
    const hasCache = (usage & SWAP_MAP.hasCache) !== 0;
    if (hasCache !== (page !== 0n))
      return refuse(`is ${hasCache ? 'in' : 'not in'} the swap cache by its map, which differs`);
    const physical =
      page === 0n ? undefined : this.#contentInCache(page, type, slot, { owner, place }, refuse);
    if (physical !== undefined || this.why !== '') return physical;
    return this.#stored(entries, slot);
  }

  #refuse(why: string): undefined {
    this.why = why;
  }

  #area(type: number): AreaEntries | string {
    let found = this.#areas.get(type);
    if (found !== undefined) return found;
    try {
      found = new AreaEntries(this.#kernel, type);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      found = error.message;
    }
    this.#areas.set(type, found);
    return found;
  }

  /** Where the swap cache has the content; undefined if it is still to be read from the area. */
  #contentInCache(
    address: bigint,
    type: number,
    slot: number,
    user: SwapUser,
    refuse: (problem: string) => undefined,
  ): number | undefined {
    const kernel = this.#kernel;
    const head = kernel.bind(pageStruct).at(address);
    const has = (flag: string): boolean => head.flags.has(kernel.enumerator(flag));
    const entry = swapEntry(head.private);
    const distance = slot - entry.slot;
    const isInCache = has('PG_swapcache') && has('PG_swapbacked');
    if (!isInCache || head._refcount <= 0 || entry.type !== type || distance < 0 || distance >= MAX_FOLIO)
      return refuse('has a page in the swap cache that does not belong there');
    if (!isOf(user, head.mapping, head.index + distance))
      return refuse(`has a page in the swap cache that belongs to place ${head.index + distance} elsewhere`);
    const pfn = kernel.pageToPfn(address) + distance;
    if (this.#isPoisoned(head) || this.#isPoisoned(kernel.bind(pageStruct).at(kernel.pfnToPage(pfn))))
      return refuse('has a poisoned page in the swap cache');
    if (!has('PG_uptodate')) {
      // A page is locked before it enters the cache to be read. One that could not be read, and one whose
      // frame failed (me_swapcache_dirty), stays without content: a process would get SIGBUS for it.
      return has('PG_locked') ? undefined : refuse('could not be read, or is poisoned');
    }
    const physical = pfn * PAGE_SIZE;
    if (!kernel.physical.has(physical, PAGE_SIZE))
      return refuse('is in the swap cache, in a frame that is not in the dump');
    return physical;
  }

  /** A kernel that was built without memory failures has no such flag. */
  #isPoisoned({ flags }: Page): boolean {
    const poisoned = readable(() => this.#kernel.enumerator('PG_hwpoison'));
    return poisoned !== undefined && flags.has(poisoned);
  }

  #stored(entries: AreaEntries, slot: number): number | undefined {
    if (entries.isZeros(slot)) return this.#readable(swapAddress(ZEROS, slot), 'zeros');
    this.#isCompressing ??= isCompressing(this.#kernel);
    if (this.#isCompressing)
      return this.#refuse(
        'the kernel keeps pages of swap areas compressed in memory (zswap), which is not read',
      );
    return this.#readable(swapAddress(entries.area.type, slot), entries.area.name);
  }

  /** Of a living kernel nothing is read: it is told what will be. */
  #readable(address: number, name: string): number | undefined {
    const { isAlive, stored, release } = this.#kernel;
    const untried = isAlive ? untriedSwap(release) : undefined;
    if (untried !== undefined) return this.#refuse(untried);
    if (isAlive || stored?.has(address, PAGE_SIZE) === true) return address;
    const problem = stored?.problem(address) ?? `the swap area ${name} cannot be read there`;
    return this.#refuse(stored === undefined ? 'the dump does not have what is in swap' : problem);
  }
}

/** Pages of the largest folio that is swapped out as a whole: a huge page. */
const MAX_FOLIO = 512;

/**
 * Whether zswap has any pages: which, only its trees tell. A kernel that was built without it has no such
 * counter; one that switched it off has it, and what it holds.
 */
function isCompressing(kernel: Kernel): boolean {
  const stored = kernel.symbolMaybe('zswap_stored_pages');
  return stored !== undefined && kernel.memory.u32(stored) !== 0;
}

/** Of each kernel as it was opened: what is read of an area is read once. */
const known = new WeakMap<Kernel, SwapEntries>();

/** The swap entries of a kernel. */
export function swapEntriesOf(kernel: Kernel): SwapEntries {
  const entries = known.get(kernel) ?? new SwapEntries(kernel);
  known.set(kernel, entries);
  return entries;
}
