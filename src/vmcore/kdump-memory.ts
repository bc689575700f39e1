import { writeSync } from 'node:fs';
import { PAGE_SIZE } from '../system/page.ts';
import { decompressPage } from './decompress.ts';
import { AddressError, readable, VmcoreError } from './errors.ts';
import { type Bitmaps, countFrames, DESCRIPTOR_BYTES, ONES, readDescriptor } from './kdump-bitmap.ts';
import { type PhysicalMemory, type PhysicalRange, WindowedMemory } from './physical.ts';
import type { Window } from './view.ts';

/** Pages kept decompressed: 64 MiB. */
const CACHED_PAGES = 16_384;
/** Pages between two counts of the bitmap. */
const RANK_FRAMES = 4096;
/** No memory map has more holes; past this the rest counts as one range. */
const MAX_RANGES = 65_536;
/** Pages collected before they are written. */
const WRITE_PAGES = 256;

/**
 * Descriptors that are looked at, from the last one back, for the end of the pages: those of the page of
 * zeros do not count.
 */
const LAST_DESCRIPTORS = 4096;
const DESCRIPTOR_CHUNK = 4096;

/** Whether pages that the file should hold are not in it: it was cut off, or its writer ran out of room. */
export type MissingPages = 'none' | 'behind the end' | 'never written';

function isSet(bitmap: Buffer, frame: number): boolean {
  return ((bitmap[frame >> 3] ?? 0) & (1 << (frame & 7))) !== 0;
}

/**
 * Physical memory of a kdump-compressed file; pages are decompressed when they are read, the last ones are
 * kept.
 */
export class CompressedMemory extends WindowedMemory implements PhysicalMemory {
  readonly ranges: readonly PhysicalRange[];
  readonly #parts: Bitmaps;
  /** How many pages are in the file before each RANK_FRAMES frames. */
  readonly #ranks: Uint32Array;
  readonly #cache = new Map<number, Window>();
  /** Found when it is first asked for. */
  #missing: MissingPages | undefined;

  constructor(parts: Bitmaps) {
    super();
    this.#parts = parts;
    this.ranges = rangesOf(parts);
    this.#ranks = new Uint32Array(Math.ceil(parts.frames / RANK_FRAMES) + 1);
    let rank = 0;
    for (let byte = 0; byte * 8 < parts.frames; byte++) {
      if ((byte * 8) % RANK_FRAMES === 0) this.#ranks[(byte * 8) / RANK_FRAMES] = rank;
      rank += ONES[parts.dumped[byte] ?? 0]!;
    }
  }

  has(physical: number, length: number): boolean {
    if (!this.#isMarked(physical, length)) return false;
    this.#missing ??= this.missingPages();
    if (this.#missing === 'none') return true;
    for (let frame = Math.floor(physical / PAGE_SIZE); frame * PAGE_SIZE < physical + length; frame++) {
      if (readable(() => this.#compressed(frame)) === undefined) return false;
    }
    return true;
  }

  /**
   * Whether the bitmap says that all of these bytes are in the file; of a file that was cut off it says too
   * much.
   */
  #isMarked(physical: number, length: number): boolean {
    for (let frame = Math.floor(physical / PAGE_SIZE); frame * PAGE_SIZE < physical + length; frame++) {
      if (frame >= this.#parts.frames || !isSet(this.#parts.dumped, frame)) return false;
    }
    return true;
  }

  contiguous(physical: number, length: number): Window | undefined {
    const offset = physical % PAGE_SIZE;
    if (offset + length > PAGE_SIZE || !this.#isMarked(physical, length)) return undefined;
    const page = this.#page(Math.floor(physical / PAGE_SIZE));
    return { data: page.data, offset: page.offset + offset };
  }

  window(physical: number, length: number): Window {
    const window = this.contiguous(physical, length);
    if (window !== undefined) return window;
    if (!this.#isMarked(physical, length)) throw this.#absent(physical);
    const copy = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const at = physical + done;
      const part = Math.min(length - done, PAGE_SIZE - (at % PAGE_SIZE));
      copy.set(this.view(at, part), done);
      done += part;
    }
    return { data: new DataView(copy.buffer, copy.byteOffset, length), offset: 0 };
  }

  writeRuns(fd: number, runs: readonly PhysicalRange[]): number {
    let total = 0;
    for (const run of runs) {
      for (let done = 0; done < run.length; ) {
        const part = Math.min(run.length - done, WRITE_PAGES * PAGE_SIZE);
        const bytes = this.view(run.physical + done, part);
        for (let written = 0; written < part; ) written += writeSync(fd, bytes, written, part - written);
        done += part;
        total += part;
      }
    }
    return total;
  }

  close(): void {
    this.#cache.clear();
    this.#parts.content.unmap();
  }

  /**
   * What the file lacks of its pages, as far as the last of their descriptors tell. makedumpfile and QEMU
   * write pages in ascending order, but those that are zero once only: so the last descriptors often are that
   * one's, and the first of another page before them is of the last page that was written.
   */
  missingPages(): MissingPages {
    const { content, dumped, descriptorsAt } = this.#parts;
    const count = countFrames(dumped, this.#parts.frames);
    let zeroPage: number | undefined;
    let others = 0;
    for (let end = count; end > 0 && others < LAST_DESCRIPTORS; end -= DESCRIPTOR_CHUNK) {
      const start = Math.max(0, end - DESCRIPTOR_CHUNK);
      const raw = content.bytes(descriptorsAt + start * DESCRIPTOR_BYTES, (end - start) * DESCRIPTOR_BYTES);
      if (raw === undefined) return 'behind the end';
      const chunk = new DataView(raw.buffer, raw.byteOffset, raw.length);
      for (let at = raw.length - DESCRIPTOR_BYTES; at >= 0; at -= DESCRIPTOR_BYTES) {
        const { offset, size } = readDescriptor(chunk, at);
        if (offset === zeroPage) continue;
        if (offset === 0) return 'never written';
        if (content.bytes(offset, size) === undefined) return 'behind the end';
        if (zeroPage !== undefined) others++;
        zeroPage ??= offset;
      }
    }
    return 'none';
  }

  leftOut(physical: number): boolean {
    const { existing, dumped } = this.#parts;
    const frame = Math.floor(physical / PAGE_SIZE);
    return isSet(existing, frame) && !isSet(dumped, frame);
  }

  #absent(physical: number): AddressError {
    const problem = this.leftOut(physical) ? 'was left out of the dump' : 'is not in the dump';
    return new AddressError(physical, `${problem} (physical)`);
  }

  /** How many pages are in the file before a frame's. */
  #rank(frame: number): number {
    const { dumped } = this.#parts;
    const block = Math.floor(frame / RANK_FRAMES);
    let rank = this.#ranks[block] ?? 0;
    for (let byte = (block * RANK_FRAMES) / 8; byte < frame >> 3; byte++) rank += ONES[dumped[byte]!]!;
    return rank + ONES[dumped[frame >> 3]! & ((1 << (frame & 7)) - 1)]!;
  }

  #page(frame: number): Window {
    const known = this.#cache.get(frame);
    if (known !== undefined) return known;
    const page = this.#decompress(frame);
    const window = { data: new DataView(page.buffer, page.byteOffset, PAGE_SIZE), offset: 0 };
    if (this.#cache.size >= CACHED_PAGES) {
      for (const oldest of this.#cache.keys()) {
        this.#cache.delete(oldest);
        if (this.#cache.size < CACHED_PAGES / 2) break;
      }
    }
    this.#cache.set(frame, window);
    return window;
  }

  /** Throws an AddressError if that page is damaged or is not in the file: others may be whole. */
  #decompress(frame: number): Uint8Array {
    const { data, flags } = this.#compressed(frame);
    try {
      return decompressPage(data, flags, PAGE_SIZE);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      throw new AddressError(frame * PAGE_SIZE, `cannot be read (physical): ${error.message}`);
    }
  }

  /** A page as it is in the file. Throws an AddressError if the file does not hold it. */
  #compressed(frame: number): { readonly data: Uint8Array; readonly flags: number } {
    const { content, descriptorsAt } = this.#parts;
    const raw = content.bytes(descriptorsAt + this.#rank(frame) * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
    if (raw === undefined)
      throw new AddressError(frame * PAGE_SIZE, 'lies behind the end of the file (physical)');
    const { offset, size, flags } = readDescriptor(
      new DataView(raw.buffer, raw.byteOffset, DESCRIPTOR_BYTES),
      0,
    );
    const data = offset === 0 || size === 0 || size > PAGE_SIZE ? undefined : content.bytes(offset, size);
    if (data === undefined) {
      throw new AddressError(frame * PAGE_SIZE, 'is missing from an incomplete or damaged dump (physical)');
    }
    return { data, flags };
  }
}

/** Ranges of frames that are memory. */
function rangesOf({ existing, frames }: Bitmaps): PhysicalRange[] {
  const ranges: { physical: number; length: number }[] = [];
  let start = -1;
  for (let frame = 0; frame <= frames; frame++) {
    const byte = existing[frame >> 3] ?? 0;
    if ((frame & 7) === 0 && frame + 8 <= frames && (start < 0 ? byte === 0 : byte === 0xff)) {
      frame += 7;
      continue;
    }
    const present = frame < frames && isSet(existing, frame);
    if (present && start < 0) start = frame;
    if (present || start < 0) continue;
    ranges.push({ physical: start * PAGE_SIZE, length: (frame - start) * PAGE_SIZE });
    start = -1;
    if (ranges.length === MAX_RANGES) {
      ranges.push({ physical: frame * PAGE_SIZE, length: (frames - frame) * PAGE_SIZE });
      break;
    }
  }
  return ranges;
}
