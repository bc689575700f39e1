import { writeSync } from 'node:fs';
import { PAGE_SIZE } from '../system/page.ts';
import { messageOf } from '../system/thrown.ts';
import { AddressError } from './errors.ts';
import type { Kcore } from './kcore.ts';
import {
  type PhysicalMemory,
  type PhysicalRange,
  RangeTable,
  type ReadNote,
  WindowedMemory,
} from './physical.ts';
import type { Window } from './view.ts';

/** What is kept of what was read, first come first kept: what all decisions begin with is read first. */
const KEPT_BYTES = 64 << 20;
/** What is kept of the rest, the last of it: page tables and descriptors of pages, for the most part. */
const RECENT_BYTES = 8 << 20;
/** Pages of memory that is got from V8 at once. */
const SLAB_PAGES = 64;
/** What is longer is read for who asks for it, and not kept: the kernel's tables of symbols and types. */
const LONGEST_KEPT = 64 << 10;
/** What is written at a time. */
const WRITE_BYTES = 1 << 20;

/** How much is kept, in bytes. */
interface Limits {
  readonly kept: number;
  readonly recent: number;
}

/** A range of memory; `offset` is how far in `start` of the file it begins. */
interface Range extends PhysicalRange {
  readonly offset: number;
  readonly start: bigint;
}

/** Bytes that were read. */
interface Kept extends Window {
  readonly length: number;
}

/**
 * Physical memory of the running kernel. Each page is read when it is first looked at, and kept until
 * `forget`: what is looked at twice is the same. If there are too many, that holds for those that were read
 * first; of the others only the last are kept.
 */
export class KcoreMemory extends WindowedMemory implements PhysicalMemory {
  readonly ranges: readonly PhysicalRange[];
  readonly #kcore: Kcore;
  readonly #limits: Limits;
  readonly #table: RangeTable<Range>;
  /** By the physical address of the first byte: pages, and structures that reach over the end of one. */
  readonly #kept = new Map<number, Kept>();
  #keptBytes = 0;
  /** What came when that was full. */
  readonly #recent = new Map<number, Kept>();
  #recentBytes = 0;
  /** Of each note what was looked at since, as it is kept. */
  readonly #notes = new Set<Set<number>>();
  #slab = new DataView(new ArrayBuffer(0));
  #used = 0;

  constructor(kcore: Kcore, limits: Limits = { kept: KEPT_BYTES, recent: RECENT_BYTES }) {
    super();
    this.#kcore = kcore;
    this.#limits = limits;
    this.#table = new RangeTable(
      kcore.segments.map(({ physical, length, fileOffset }) => ({
        ...{ physical, length },
        offset: 0,
        start: fileOffset,
      })),
    );
    this.ranges = this.#table.ranges;
  }

  has(physical: number, length: number): boolean {
    return this.#table.cover(physical, length);
  }

  contiguous(physical: number, length: number): Window | undefined {
    const inPage = physical % PAGE_SIZE;
    const isInPage = inPage + length <= PAGE_SIZE;
    const start = isInPage ? physical - inPage : physical;
    const needed = isInPage ? PAGE_SIZE : length;
    for (const note of this.#notes) note.add(start);
    const known = this.#known(start);
    if (known !== undefined && known.length >= needed)
      return { data: known.data, offset: known.offset + (physical - start) };
    const range = this.#table.find(start);
    if (range === undefined || start + needed > range.physical + range.length) return undefined;
    const read = isInPage ? this.#readPage(range, start) : this.#readSpan(range, start, length);
    return { data: read.data, offset: read.offset + (physical - start) };
  }

  window(physical: number, length: number): Window {
    const window = this.contiguous(physical, length);
    if (window !== undefined) return window;
    if (!this.has(physical, length)) throw absent(physical);
    const copy = new Uint8Array(length);
    this.#fill(copy, physical);
    return { data: new DataView(copy.buffer), offset: 0 };
  }

  override withView<T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T {
    const inPage = physical % PAGE_SIZE;
    const known = inPage + length <= PAGE_SIZE && this.#known(physical - inPage) !== undefined;
    if (known) return use(this.view(physical, length));
    if (!this.has(physical, length)) throw absent(physical);
    const bytes = Buffer.allocUnsafe(length);
    this.#fill(bytes, physical);
    return use(bytes);
  }

  writeRuns(fd: number, runs: readonly PhysicalRange[]): number {
    let total = 0;
    for (const { physical, length } of runs) {
      for (let done = 0; done < length; done += WRITE_BYTES) {
        const part = Math.min(length - done, WRITE_BYTES);
        this.withView(physical + done, part, (bytes) => {
          for (let written = 0; written < part; ) written += writeSync(fd, bytes, written, part - written);
        });
        total += part;
      }
    }
    return total;
  }

  readNow(physical: number, into: Uint8Array): void {
    this.#fill(into, physical);
  }

  /** From now on memory is read anew. What was read before stays as it was for who has it. */
  forget(): void {
    this.#kept.clear();
    this.#recent.clear();
    this.#keptBytes = 0;
    this.#recentBytes = 0;
  }

  /** Windows that were got before stay as they were. */
  noteReads(): ReadNote {
    const note = new Set<number>();
    this.#notes.add(note);
    return {
      forget: () => {
        for (const start of note) this.#forgetOne(start);
        note.clear();
      },
      end: () => this.#notes.delete(note),
    };
  }

  #forgetOne(start: number): void {
    this.#keptBytes -= this.#kept.get(start)?.length ?? 0;
    this.#kept.delete(start);
    this.#recentBytes -= this.#recent.get(start)?.length ?? 0;
    this.#recent.delete(start);
  }

  close(): void {
    this.forget();
    this.#kcore.close();
  }

  #readPage(range: Range, physical: number): Kept {
    if (this.#used === this.#slab.byteLength) {
      this.#slab = new DataView(new ArrayBuffer(SLAB_PAGES * PAGE_SIZE));
      this.#used = 0;
    }
    const page = { data: this.#slab, offset: this.#used, length: PAGE_SIZE };
    this.#readExact(range, physical, new Uint8Array(this.#slab.buffer, page.offset, PAGE_SIZE));
    this.#used += PAGE_SIZE;
    this.#keep(physical, page);
    return page;
  }

  #readSpan(range: Range, physical: number, length: number): Window {
    const bytes = new Uint8Array(length);
    this.#readExact(range, physical, bytes);
    const span = { data: new DataView(bytes.buffer), offset: 0, length };
    if (length <= LONGEST_KEPT) this.#keep(physical, span);
    return span;
  }

  #known(start: number): Kept | undefined {
    return this.#kept.get(start) ?? this.#recent.get(start);
  }

  #keep(physical: number, kept: Kept): void {
    const more = kept.length - (this.#kept.get(physical)?.length ?? 0);
    if (this.#keptBytes + more <= this.#limits.kept) {
      this.#keptBytes += more;
      this.#kept.set(physical, kept);
    } else {
      this.#keepForAWhile(physical, kept);
    }
  }

  /** The oldest half goes when there is too much. */
  #keepForAWhile(physical: number, kept: Kept): void {
    this.#recentBytes += kept.length - (this.#recent.get(physical)?.length ?? 0);
    this.#recent.set(physical, kept);
    const { recent } = this.#limits;
    if (this.#recentBytes <= recent) return;
    for (const [oldest, { length }] of this.#recent) {
      this.#recent.delete(oldest);
      this.#recentBytes -= length;
      if (this.#recentBytes <= recent / 2) break;
    }
  }

  /** Memory that lies in several ranges. */
  #fill(bytes: Uint8Array, physical: number): void {
    for (let done = 0; done < bytes.length; ) {
      const range = this.#table.find(physical + done);
      if (range === undefined) throw absent(physical + done);
      const end = Math.min(physical + bytes.length, range.physical + range.length);
      this.#readExact(range, physical + done, bytes.subarray(done, end - physical));
      done = end - physical;
    }
  }

  #readExact(range: Range, physical: number, bytes: Uint8Array): void {
    const inside = range.offset + (physical - range.physical);
    try {
      if (this.#kcore.readInto(bytes, range.start + BigInt(inside)) === bytes.length) return;
    } catch (error) {
      throw new AddressError(physical, `cannot be read (physical; ${messageOf(error)})`);
    }
    throw new AddressError(physical, `lies behind the end of ${this.#kcore.path} (physical)`);
  }
}

function absent(physical: number): AddressError {
  return new AddressError(physical, 'is no memory that the kernel shows (physical)');
}
