import { PAGE_SIZE } from '../../system/page.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { type MappedRun, walkUserPages } from '../../vmcore/page-table.ts';
import { contentOf, STORED } from '../../vmcore/stored-pages.ts';
import type { Mm, VmArea } from '../mm-types.ts';
import { cachedPageOf } from '../pagemap.ts';
import { swapEntriesOf } from './swap-entries.ts';
import { forEachVma } from './vma.ts';

/** Where user space ends with five levels of page tables. */
const USER_END = 1n << 56n;

/** What a program would have read at an address. */
export type UserRead =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  /** No memory is mapped there, so that nothing can be: reading it is a fault. */
  | { readonly kind: 'unmapped' }
  /**
   * There is something, and the dump does not tell what: `why` is a sentence. `isStored`: a living kernel has
   * it in swap, where it is read after a panic.
   */
  | { readonly kind: 'unknown'; readonly why: string; readonly isStored?: true };

/** Where the bytes of a page are: a physical address, or zeros that no frame stands for yet. */
type PagePlace =
  | { readonly kind: 'frame'; readonly physical: number }
  | { readonly kind: 'zeros' }
  | Exclude<UserRead, { readonly kind: 'bytes' }>;

const hexAddress = (address: number): string => `0x${address.toString(16)}`;

/**
 * The memory of one process as it would have read it itself: pages in the page tables, also those that
 * PROT_NONE or NUMA balancing took away for a while, and those in swap where that can be read; where the
 * tables have none, what a page fault would have brought (zeros, or a page of the file's cache).
 */
export class UserMemory {
  readonly #kernel: Kernel;
  readonly #mm: Mm;
  #areas: readonly VmArea[] | undefined;

  constructor(kernel: Kernel, mm: Mm) {
    this.#kernel = kernel;
    this.#mm = mm;
  }

  /** `length` bytes, all or none. Nothing is thrown for a damaged dump. */
  read(address: bigint, length: number): UserRead {
    if (address < 0n || address + BigInt(length) > USER_END) return { kind: 'unmapped' };
    const bytes = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const at = Number(address) + done;
      const inPage = at % PAGE_SIZE;
      const part = Math.min(length - done, PAGE_SIZE - inPage);
      const place = this.#placeOf(at - inPage);
      if (place.kind === 'unmapped' || place.kind === 'unknown') return place;
      const why =
        place.kind === 'frame'
          ? this.#copy(place.physical + inPage, bytes.subarray(done, done + part), at - inPage)
          : undefined;
      if (why !== undefined) return { kind: 'unknown', why };
      done += part;
    }
    return { kind: 'bytes', bytes };
  }

  /**
   * Whether a test holds for any page that is in the page tables between two addresses. The test gets the
   * page with `before` bytes in front of it: the last ones of the page before, or zeros. What the dump does
   * not have is passed over.
   * @throws VmcoreError if the page tables cannot be read
   */
  someMapped(start: number, end: number, before: number, test: (bytes: Buffer) => boolean): boolean {
    const bytes = Buffer.alloc(before + PAGE_SIZE);
    let behind = 0;
    for (const run of walkUserPages(this.#kernel, this.#mm.pgd, start, end)) {
      for (let i = 0; i < run.pages; i++) {
        const page = run.address + i * PAGE_SIZE;
        const place: PagePlace =
          run.kind === 'present'
            ? { kind: 'frame', physical: (run.pfn + i) * PAGE_SIZE }
            : this.#swapped(run);
        if (place.kind !== 'frame') continue;
        if (page === behind) bytes.copyWithin(0, PAGE_SIZE);
        else bytes.fill(0, 0, before);
        if (this.#copy(place.physical, bytes.subarray(before), page) !== undefined) continue;
        behind = page + PAGE_SIZE;
        if (test(bytes)) return true;
      }
    }
    return false;
  }

  /**
   * Copies bytes of a frame, which is the page at `page`; comes back with a sentence if the dump does not
   * have them.
   */
  #copy(physical: number, to: Buffer, page: number): string | undefined {
    const memory = contentOf(this.#kernel);
    if (!memory.has(physical, to.length)) {
      const isFiltered = memory.leftOut?.(physical) === true;
      return `the page at ${hexAddress(page)} ${isFiltered ? 'was left out of' : 'is not in'} the dump`;
    }
    try {
      memory.withView(physical, to.length, (from) => to.set(from));
      return undefined;
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return error.message;
    }
  }

  #placeOf(page: number): PagePlace {
    try {
      const [run] = walkUserPages(this.#kernel, this.#mm.pgd, page, page + PAGE_SIZE);
      if (run === undefined) return this.#untouched(page);
      return run.kind === 'present' ? { kind: 'frame', physical: run.pfn * PAGE_SIZE } : this.#swapped(run);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return { kind: 'unknown', why: error.message };
    }
  }

  /** Where a page is that is not present. Of a living kernel what is in swap is not read. */
  #swapped({ address, pageSizeBytes, entryLow, entryHigh }: MappedRun): PagePlace {
    const { pageTable } = this.#kernel.architecture;
    const entries = swapEntriesOf(this.#kernel);
    const type = pageTable.swapType(entryHigh);
    const slot = pageSizeBytes === PAGE_SIZE ? pageTable.swapSlot(entryLow, entryHigh) : undefined;
    const page = `the page at ${hexAddress(address)}`;
    if (slot === undefined || !entries.isArea(type))
      return { kind: 'unknown', why: `${page} is being moved or poisoned` };
    const physical = entries.addressOf(type, slot, 'process');
    if (physical === undefined) return { kind: 'unknown', why: `${page} is in swap: ${entries.why}` };
    if (physical < STORED || this.#kernel.stored !== undefined) return { kind: 'frame', physical };
    return { kind: 'unknown', why: `${page} is in swap, which is read after a panic`, isStored: true };
  }

  /** What a page fault would have brought. Throws a VmcoreError. */
  #untouched(page: number): PagePlace {
    const area = this.#areaAt(page);
    if (area === undefined) return { kind: 'unmapped' };
    // vma_is_anonymous()
    if (area.vm_ops === 0n) return { kind: 'zeros' };
    if (area.vm_file === 0n)
      return { kind: 'unknown', why: `the page at ${hexAddress(page)} is one of the kernel's own` };
    const index = area.vm_pgoff + (page - area.vm_start) / PAGE_SIZE;
    const found = cachedPageOf(this.#kernel, area.vm_file, index);
    switch (found.kind) {
      case 'page':
        return { kind: 'frame', physical: found.physical };
      case 'hole':
        return { kind: 'zeros' };
      case 'behind-end':
        return { kind: 'unmapped' };
      case 'elsewhere':
        return { kind: 'unknown', why: `the page at ${hexAddress(page)} of a mapped file is not in memory` };
    }
  }

  #areaAt(page: number): VmArea | undefined {
    this.#areas ??= [...forEachVma(this.#kernel, this.#mm)];
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#areas[middle]?.vm_end ?? 0) <= page) low = middle + 1;
      else high = middle;
    }
    const area = this.#areas[low];
    return area !== undefined && area.vm_start <= page ? area : undefined;
  }
}
