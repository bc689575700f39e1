import { AddressError, readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, struct } from '../vmcore/view.ts';

/** `struct page` (include/linux/mm_types.h): where the members are that the scan below reads by itself. */
const pageStruct = struct('page', {
  compound_head: addressOf('compound_head'),
  mapping: addressOf('mapping'),
  index: addressOf('index'),
  refcount: addressOf('_refcount'),
});

/** Low bits of `page->mapping` (PAGE_MAPPING_FLAGS): 1 is anonymous memory, 3 is a page merged by KSM. */
const MAPPING_ANON = 1;
const MAPPING_KSM = 3;
const PAGE = 4096;

export type PageOwner =
  /** Anonymous memory; `index` is its place in its area (`linear_page_index`), or undefined for a KSM page. */
  | { readonly kind: 'anonymous'; readonly index: number | undefined }
  /** Of a file's page cache, or of shared memory. */
  | { readonly kind: 'cache' }
  /** Neither: reserved, of a driver, or free. */
  | { readonly kind: 'other' };

interface Descriptor {
  readonly low: number;
  readonly head: bigint;
  readonly index: number;
  readonly isFree: boolean;
  readonly hasMapping: boolean;
}

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

  constructor(kernel: Kernel) {
    const type = kernel.bind(pageStruct);
    this.#kernel = kernel;
    this.#size = type.size;
    this.#offsets = {
      head: type.offsetOf('compound_head'),
      mapping: type.offsetOf('mapping'),
      index: type.offsetOf('index'),
      refcount: type.offsetOf('refcount'),
    };
    this.#zeroPages = zeroPages(kernel);
  }

  /** Whether the frame is the kernel's page of zeros, small or huge: it holds nothing. */
  isZeroPage(pfn: number): boolean {
    return this.#zeroPages.has(pfn);
  }

  /** What owns a frame. Throws an AddressError if it has no descriptor in the dump. */
  ownerOf(pfn: number): PageOwner {
    const page = this.#read(pfn);
    if ((page.head & 1n) === 1n) {
      const head = this.#kernel.pageToPfn(page.head - 1n);
      if (head >= pfn || pfn - head >= 1 << 18)
        throw new AddressError(page.head, 'is no head of a compound page');
      return owner(this.#read(head), pfn - head);
    }
    return owner(page, 0);
  }

  #read(pfn: number): Descriptor {
    if (pfn < this.#first || pfn > this.#last) this.#load(pfn);
    const data = this.#data!;
    const at = this.#base + (pfn - this.#first) * this.#size;
    const low = data.getUint32(at + this.#offsets.mapping, true);
    const high = data.getUint32(at + this.#offsets.mapping + 4, true);
    const indexHigh = data.getUint32(at + this.#offsets.index + 4, true);
    return {
      low,
      hasMapping: low !== 0 || high !== 0,
      head: data.getBigUint64(at + this.#offsets.head, true),
      index: indexHigh * 0x1_0000_0000 + data.getUint32(at + this.#offsets.index, true),
      isFree: data.getInt32(at + this.#offsets.refcount, true) <= 0,
    };
  }

  /** Descriptors are 64 bytes: those of 64 frames share a page of vmemmap. */
  #load(pfn: number): void {
    const perPage = PAGE / this.#size;
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

function owner(head: Descriptor, tail: number): PageOwner {
  if (!head.hasMapping || head.isFree) return { kind: 'other' };
  if ((head.low & MAPPING_ANON) === 0) return { kind: 'cache' };
  const isKsm = (head.low & MAPPING_KSM) === MAPPING_KSM;
  return { kind: 'anonymous', index: isKsm ? undefined : head.index + tail };
}

const HUGE_FRAMES = 512;

/**
 * The frame of `empty_zero_page`, and the 512 frames of the huge zero page if there is one. The kernel keeps their numbers in variables besides
 * (`zero_pfn`, `huge_zero_pfn`), which are believed only where they agree: what is taken for zeros by mistake would be lost. Pages of zeros
 * that cannot be told are found to be no memory of a process, which is then refused.
 */
function zeroPages(kernel: Kernel): ReadonlySet<number> {
  const pages = new Set<number>();
  const small = readable(() => kernel.memory.translate(kernel.symbol('empty_zero_page')) / PAGE);
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
