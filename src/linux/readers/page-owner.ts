import { PAGE_SIZE } from '../../system/page.ts';
import { AddressError, readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { pageStruct } from '../mm-types.ts';

/** Low bits of `page->mapping` (PAGE_MAPPING_FLAGS): anonymous memory, and a page merged by KSM. */
export const PAGE_MAPPING = { anon: 1, ksm: 3 } as const;

/**
 * What owns a frame:
 * - `anonymous`: a process's own memory;
 * - `merged`: the same, merged by KSM with equal pages elsewhere;
 * - `cache`: a file's page cache, or shared memory;
 * - `zeros`: the kernel's page of zeros, small or huge: it holds nothing;
 * - `other`: none of them: reserved, of a driver, or free.
 */
export type PageOwner = 'anonymous' | 'merged' | 'cache' | 'zeros' | 'other';

/** Frames in a row of one kind of owner; anonymous ones at rising places of their area. */
export interface OwnedFrames {
  readonly owner: PageOwner;
  /** Place of the first frame in its area (`linear_page_index`); has a meaning for `anonymous` only. */
  readonly index: number;
  /** How many, at least 1. */
  readonly frames: number;
}

/** The largest compound page is 1 GiB. */
const MAX_COMPOUND = 1 << 18;

/** Reads descriptors of page frames: one look-up of kernel memory for all that are in one page of vmemmap. */
export class PageDescriptors {
  readonly #kernel: Kernel;
  readonly #size: number;
  readonly #offsets: { head: number; mapping: number; index: number; refcount: number };
  readonly #zeroPages: ReadonlySet<number>;
  #data: DataView | undefined;
  #base = 0;
  #first = -1;
  #last = -2;
  /**
   * The compound page met last: its head's address plus one, as its tails have it in two words, and what its
   * head says.
   */
  #compound = { low: 0, high: 0, pfn: 0, owner: 'other' as PageOwner, index: 0 };
  /** What `#look` found. */
  #owner: PageOwner = 'other';
  #index = 0;

  constructor(kernel: Kernel) {
    const type = kernel.bind(pageStruct);
    this.#kernel = kernel;
    this.#size = type.size;
    this.#offsets = {
      head: type.offsetOf('compound_head'),
      mapping: type.offsetOf('mapping'),
      index: type.offsetOf('index'),
      refcount: type.offsetOf('_refcount'),
    };
    this.#zeroPages = zeroPages(kernel);
  }

  /**
   * What owns a frame and those that follow it, at most `limit`, up to the first that has another owner or is
   * not at the next place of its area. Throws an AddressError if one has no descriptor in the dump.
   */
  ownerOf(pfn: number, limit: number): OwnedFrames {
    this.#look(pfn);
    const owner = this.#owner;
    const index = this.#index;
    let frames = 1;
    for (; frames < limit; frames++) {
      this.#look(pfn + frames);
      if (this.#owner !== owner || (owner === 'anonymous' && this.#index !== index + frames)) break;
    }
    return { owner, index, frames };
  }

  /**
   * Sets owner and index: this is called for each page of every process, so it makes no objects and no
   * bigints.
   */
  #look(pfn: number): void {
    if (this.#zeroPages.has(pfn)) {
      this.#owner = 'zeros';
      return;
    }
    const at = this.#locate(pfn) + this.#offsets.head;
    const low = this.#data!.getUint32(at, true);
    if ((low & 1) === 0) {
      this.#lookAtHead(pfn);
      return;
    }
    const high = this.#data!.getUint32(at + 4, true);
    if (low !== this.#compound.low || high !== this.#compound.high) this.#lookAtCompound(low, high);
    const distance = pfn - this.#compound.pfn;
    if (distance <= 0 || distance >= MAX_COMPOUND)
      throw new AddressError(this.#kernel.pfnToPage(this.#compound.pfn), 'is no head of a compound page');
    this.#owner = this.#compound.owner;
    this.#index = this.#compound.index + distance;
  }

  /** The head of the compound page that a tail names. */
  #lookAtCompound(low: number, high: number): void {
    const address = (BigInt(high) << 32n) | BigInt(low - 1);
    const pfn = this.#kernel.pageToPfn(address);
    this.#lookAtHead(pfn);
    this.#compound = { low, high, pfn, owner: this.#owner, index: this.#index };
  }

  #lookAtHead(pfn: number): void {
    const at = this.#locate(pfn);
    const data = this.#data!;
    const { mapping, index, refcount } = this.#offsets;
    const low = data.getUint32(at + mapping, true);
    const hasMapping = low !== 0 || data.getUint32(at + mapping + 4, true) !== 0;
    if (!hasMapping || data.getInt32(at + refcount, true) <= 0) this.#owner = 'other';
    else if ((low & PAGE_MAPPING.anon) === 0) this.#owner = 'cache';
    else if ((low & PAGE_MAPPING.ksm) === PAGE_MAPPING.ksm) this.#owner = 'merged';
    else this.#owner = 'anonymous';
    this.#index = data.getUint32(at + index + 4, true) * 0x1_0000_0000 + data.getUint32(at + index, true);
  }

  /** Where a frame's descriptor is in `#data`. */
  #locate(pfn: number): number {
    if (pfn < this.#first || pfn > this.#last) this.#load(pfn);
    return this.#base + (pfn - this.#first) * this.#size;
  }

  /** Descriptors are 64 bytes: those of 64 frames share a page of vmemmap. */
  #load(pfn: number): void {
    const perPage = PAGE_SIZE / this.#size;
    const whole = Number.isInteger(perPage);
    const first = whole ? pfn - (pfn % perPage) : pfn;
    const count = whole ? perPage : 1;
    const window = this.#kernel.memory.window(this.#kernel.pfnToPage(first), count * this.#size);
    this.#data = window.data;
    this.#base = window.offset;
    this.#first = first;
    this.#last = first + count - 1;
  }
}

const HUGE_FRAMES = 512;

/**
 * The frame of `empty_zero_page`, and the 512 frames of the huge zero page if there is one. The kernel keeps
 * their numbers in variables besides (`zero_pfn`, `huge_zero_pfn`), which are believed only where they agree:
 * what is taken for zeros by mistake would be lost. Pages of zeros that cannot be told are found to be no
 * memory of a process, which is then refused.
 */
function zeroPages(kernel: Kernel): ReadonlySet<number> {
  const pages = new Set<number>();
  const small = readable(() => kernel.memory.translate(kernel.symbol('empty_zero_page')) / PAGE_SIZE);
  const counted = readable(() => kernel.memory.ulongNumber(kernel.symbol('zero_pfn')));
  if (small !== undefined && small === counted) pages.add(small);
  const huge = readable(() => hugeZeroPage(kernel));
  if (huge !== undefined) for (let i = 0; i < HUGE_FRAMES; i++) pages.add(huge + i);
  return pages;
}

/** First frame of the huge zero page; 6.10 made the page a folio. */
function hugeZeroPage(kernel: Kernel): number | undefined {
  const counted = kernel.symbolMaybe('huge_zero_pfn');
  const pointer = kernel.symbolMaybe('huge_zero_folio') ?? kernel.symbolMaybe('huge_zero_page');
  if (counted === undefined || pointer === undefined) return undefined;
  const page = kernel.memory.pointer(pointer);
  const first = page === 0n ? -1 : kernel.pageToPfn(page);
  return BigInt(first) === kernel.memory.u64(counted) ? first : undefined;
}
