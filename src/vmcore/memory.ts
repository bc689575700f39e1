import type { KernelAddressSpace, PageTable } from '../arch/index.ts';
import { bytesToText } from '../system/byte-text.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { AddressError } from './errors.ts';
import { pageNumber, translateKernelPage } from './page-table.ts';
import type { PhysicalMemory } from './physical.ts';
import type { Window, WindowSource } from './view.ts';

/** Translations that are remembered. */
const MAX_WALKED = 1 << 16;

/**
 * Kernel virtual memory. Addresses are bigints. The kernel image and the direct map are translated by
 * arithmetic, vmalloc, modules and vmemmap through the kernel's page tables; every translation is checked
 * against the dump.
 */
export class KernelMemory implements WindowSource {
  readonly #physical: PhysicalMemory;
  #space: KernelAddressSpace;
  /** Page number to physical page, for what the tables had to be walked for. */
  readonly #walked = new Map<number, number>();

  constructor(physical: PhysicalMemory, space: KernelAddressSpace) {
    this.#physical = physical;
    this.#space = space;
  }

  /**
   * Replaces the translation once more is known about it (the direct map's base is itself in kernel memory).
   */
  setAddressSpace(space: KernelAddressSpace): void {
    this.#space = space;
    this.#walked.clear();
  }

  /** Of memory that changes: what the page tables said is looked up anew. */
  forgetTranslations(): void {
    this.#walked.clear();
  }

  get addressSpace(): KernelAddressSpace {
    return this.#space;
  }

  /** The page table of a process, from `mm_struct.pgd`. */
  userTable(pgd: bigint): PageTable {
    return { ...this.#space.table, root: this.translate(pgd) };
  }

  /** Physical address of a kernel address; throws an AddressError if it is not mapped. */
  translate(address: bigint): number {
    for (const range of this.#space.linear) {
      if (address >= range.start && address < range.end)
        return Number(address - range.start) + range.physical;
    }
    if (address < this.#space.start || address > 0xffff_ffff_ffff_ffffn) {
      throw new AddressError(address, 'is not a kernel address');
    }
    const page = pageNumber(address);
    let frame = this.#walked.get(page);
    if (frame === undefined) {
      frame = translateKernelPage(this.#physical, this.#space.table, page);
      if (frame === undefined) throw new AddressError(address, 'is not mapped by the kernel');
      if (this.#walked.size >= MAX_WALKED) this.#walked.clear();
      this.#walked.set(page, frame);
    }
    return frame + Number(address & 0xfffn);
  }

  contiguous(address: bigint, length: number): Window | undefined {
    for (const range of this.#space.linear) {
      if (address >= range.start && address < range.end) {
        return this.#physical.contiguous(Number(address - range.start) + range.physical, length);
      }
    }
    if (Number(address & 0xfffn) + length > PAGE_SIZE) return undefined;
    if (address < this.#space.start) return undefined;
    try {
      return this.#physical.contiguous(this.translate(address), length);
    } catch (error) {
      if (error instanceof AddressError) return undefined;
      throw error;
    }
  }

  window(address: bigint, length: number): Window {
    const window = this.contiguous(address, length);
    if (window !== undefined) return window;
    const copy = this.#copy(address, length);
    return { data: new DataView(copy.buffer, copy.byteOffset, length), offset: 0 };
  }

  /** `length` bytes, copied out. */
  read(address: bigint, length: number): Buffer {
    const window = this.contiguous(address, length);
    if (window === undefined) return this.#copy(address, length);
    const { data, offset } = window;
    return Buffer.from(new Uint8Array(data.buffer, data.byteOffset + offset, length));
  }

  /** The same of memory that changes: what is there now, while all else stays as it was read first. */
  readNow(address: bigint, length: number): Buffer {
    return this.#copy(address, length, this.#physical.readNow?.bind(this.#physical));
  }

  u8(address: bigint): number {
    const { data, offset } = this.window(address, 1);
    return data.getUint8(offset);
  }

  u16(address: bigint): number {
    const { data, offset } = this.window(address, 2);
    return data.getUint16(offset, true);
  }

  u32(address: bigint): number {
    const { data, offset } = this.window(address, 4);
    return data.getUint32(offset, true);
  }

  s32(address: bigint): number {
    const { data, offset } = this.window(address, 4);
    return data.getInt32(offset, true);
  }

  u64(address: bigint): bigint {
    const { data, offset } = this.window(address, 8);
    return data.getBigUint64(offset, true);
  }

  /** The same as `u64`, for what is a pointer. */
  pointer(address: bigint): bigint {
    return this.u64(address);
  }

  /** An `unsigned long` below 2^53, as a number; throws an AddressError if it is larger. */
  ulongNumber(address: bigint): number {
    const { data, offset } = this.window(address, 8);
    const high = data.getUint32(offset + 4, true);
    if (high >= 0x200000) throw new AddressError(address, 'holds a number far too large to be true');
    return high * 0x1_0000_0000 + data.getUint32(offset, true);
  }

  /**
   * Bytes up to the first zero, or `max` of them, as text of which `textToBytes` makes the same bytes again.
   */
  cstring(address: bigint, max: number): string {
    const parts: Buffer[] = [];
    let at = address;
    for (let left = max; left > 0; ) {
      const part = Math.min(left, PAGE_SIZE - Number(at & 0xfffn));
      const { data, offset } = this.window(at, part);
      const bytes = Buffer.from(data.buffer, data.byteOffset + offset, part);
      const end = bytes.indexOf(0);
      // Copied: a window of old memory may be gone when the next is looked at.
      parts.push(Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)));
      if (end >= 0) break;
      left -= part;
      at += BigInt(part);
    }
    return bytesToText(Buffer.concat(parts));
  }

  #copy(address: bigint, length: number, read?: PhysicalMemory['readNow']): Buffer {
    if (length > 1 << 30)
      throw new AddressError(address, `is the start of ${length} bytes, which is not believed`);
    const copy = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const at = address + BigInt(done);
      const part = Math.min(length - done, PAGE_SIZE - Number(at & 0xfffn));
      const into = copy.subarray(done, done + part);
      if (read === undefined) this.#physical.withView(this.translate(at), part, (bytes) => into.set(bytes));
      else read(this.translate(at), into);
      done += part;
    }
    return copy;
  }
}
