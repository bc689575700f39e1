import { AddressError, FormatError } from './errors.ts';
import { type FileMapping, VectorWriter } from './mapping.ts';
import type { Window } from './view.ts';

/** A range of physical memory; both in bytes. */
export interface PhysicalRange {
  readonly physical: number;
  readonly length: number;
}

/** What was looked at since it was made. */
export interface ReadNote {
  /** From now on that is read anew, and nothing else. */
  forget(): void;
  end(): void;
}

/** The dead machine's physical memory. Addresses are numbers: x86-64 has at most 52 bits of them. */
export interface PhysicalMemory {
  /** What the dump covers, ascending; ranges do not overlap. */
  readonly ranges: readonly PhysicalRange[];
  /** Whether all of these bytes are in the dump. */
  has(physical: number, length: number): boolean;
  /**
   * Whether an address is of memory that the dump's writer left out on purpose (makedumpfile -d), as far as
   * the dump tells.
   */
  leftOut?(physical: number): boolean;
  /**
   * `length` bytes; what lies in one piece of a mapped file is not copied. Throws an AddressError if any is
   * absent.
   */
  window(physical: number, length: number): Window;
  /**
   * The same, or undefined if a byte is absent or not in the same piece of the file: never copies a mapped
   * file. Throws an AddressError only if the operating system refuses to map it.
   */
  contiguous(physical: number, length: number): Window | undefined;
  /** Like `window`, as a byte array over the same memory. Read-only: writing to it kills the process. */
  view(physical: number, length: number): Uint8Array;
  /**
   * Calls `use` with bytes that are looked at once: they may be gone when it has ended, or when it looks at
   * other memory. For what processes and files have; `view` may take memory of the crash kernel for each part
   * of old memory that it was called for, and keep it.
   */
  withView<T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T;
  /** Writes runs of memory to a file, straight from the mapping (writev); returns the bytes written. */
  writeRuns(fd: number, runs: readonly PhysicalRange[]): number;
  /** Of memory that changes: fills `into` with what is there now, whatever was read and kept before. */
  readNow?(physical: number, into: Uint8Array): void;
  /** Of memory that changes: from now on it is read anew. */
  forget?(): void;
  /** Of memory that changes: notes what is looked at until the note ends. */
  noteReads?(): ReadNote;
  close(): void;
}

/** What memory gives as bytes, whose windows last as long as itself. */
export abstract class WindowedMemory implements Pick<PhysicalMemory, 'window' | 'view' | 'withView'> {
  abstract window(physical: number, length: number): Window;

  view(physical: number, length: number): Uint8Array {
    const { data, offset } = this.window(physical, length);
    return new Uint8Array(data.buffer, data.byteOffset + offset, length);
  }

  withView<T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T {
    return use(this.view(physical, length));
  }
}

/**
 * A mapping that is made when it is first used. One that cannot be made leaves its memory out of the dump.
 */
export class SharedMapping {
  readonly #map: () => FileMapping;
  #mapping: FileMapping | undefined;
  #problem: string | undefined;

  constructor(map: () => FileMapping) {
    this.#map = map;
  }

  /** Throws an AddressError that names `physical` if the mapping cannot be made. */
  get(physical: number): FileMapping {
    if (this.#mapping !== undefined) return this.#mapping;
    try {
      if (this.#problem === undefined) this.#mapping = this.#map();
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      this.#problem = error.message;
    }
    if (this.#mapping === undefined) {
      throw new AddressError(physical, `cannot be mapped (physical; ${this.#problem})`);
    }
    return this.#mapping;
  }

  unmap(): void {
    this.#mapping?.unmap();
    this.#mapping = undefined;
  }
}

/** One range of physical memory and the mapping of the file that holds it. */
export interface Segment extends PhysicalRange {
  readonly mapping: SharedMapping;
  /** Where the range starts in the mapping. */
  readonly offset: number;
}

/**
 * Ranges of physical memory and where they are: sorted, with what overlaps cut (`/proc/vmcore` and copies of
 * it have the kernel's text twice).
 */
export class RangeTable<Range extends PhysicalRange & { readonly offset: number }> {
  readonly ranges: readonly Range[];
  #last: Range | undefined;

  constructor(ranges: readonly Range[]) {
    this.ranges = disjoint(ranges);
    this.#last = this.ranges[0];
  }

  /** The range that an address is in. */
  find(physical: number): Range | undefined {
    const last = this.#last;
    if (last !== undefined && physical >= last.physical && physical < last.physical + last.length)
      return last;
    let low = 0;
    let high = this.ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = this.ranges[middle];
      if (range === undefined) return undefined;
      if (physical < range.physical) high = middle - 1;
      else if (physical >= range.physical + range.length) low = middle + 1;
      else {
        this.#last = range;
        return range;
      }
    }
    return undefined;
  }

  /** Whether all of these bytes are in ranges. */
  cover(physical: number, length: number): boolean {
    for (let at = physical; at < physical + length; ) {
      const range = this.find(at);
      if (range === undefined) return false;
      at = range.physical + range.length;
    }
    return true;
  }
}

function disjoint<Range extends PhysicalRange & { readonly offset: number }>(
  ranges: readonly Range[],
): Range[] {
  const sorted = ranges.filter(({ length }) => length > 0).toSorted((a, b) => a.physical - b.physical);
  const result: Range[] = [];
  let end = 0;
  for (const range of sorted) {
    const cut = Math.max(0, end - range.physical);
    if (cut >= range.length) continue;
    const { physical, length, offset } = range;
    result.push({ ...range, physical: physical + cut, length: length - cut, offset: offset + cut });
    end = physical + length;
  }
  return result;
}

/** Physical memory of a dump whose pages lie in the file as they were: an ELF vmcore. */
export class MappedMemory extends WindowedMemory implements PhysicalMemory {
  readonly ranges: readonly PhysicalRange[];
  readonly #segments: RangeTable<Segment>;
  readonly #leftOut: RangeTable<PhysicalRange & { readonly offset: number }>;

  /** @param leftOut what the file says is memory, and does not hold */
  constructor(segments: readonly Segment[], leftOut: readonly PhysicalRange[] = []) {
    super();
    this.#segments = new RangeTable(segments);
    this.ranges = this.#segments.ranges;
    this.#leftOut = new RangeTable(leftOut.map((range) => ({ ...range, offset: 0 })));
  }

  leftOut(physical: number): boolean {
    return this.#segments.find(physical) === undefined && this.#leftOut.find(physical) !== undefined;
  }

  #absent(physical: number): AddressError {
    const problem = this.leftOut(physical) ? 'was left out of the dump' : 'is not in the dump';
    return new AddressError(physical, `${problem} (physical)`);
  }

  has(physical: number, length: number): boolean {
    return this.#segments.cover(physical, length);
  }

  contiguous(physical: number, length: number): Window | undefined {
    const segment = this.#segments.find(physical);
    if (segment === undefined || physical + length > segment.physical + segment.length) return undefined;
    return {
      data: segment.mapping.get(physical).data,
      offset: segment.offset + (physical - segment.physical),
    };
  }

  window(physical: number, length: number): Window {
    const window = this.contiguous(physical, length);
    if (window !== undefined) return window;
    if (!this.has(physical, length)) throw this.#absent(physical);
    const copy = Buffer.alloc(length);
    for (let at = physical; at < physical + length; ) {
      const segment = this.#segments.find(at);
      if (segment === undefined) throw this.#absent(at);
      const part = Math.min(physical + length, segment.physical + segment.length) - at;
      copy.set(this.view(at, part), at - physical);
      at += part;
    }
    return { data: new DataView(copy.buffer, copy.byteOffset, length), offset: 0 };
  }

  writeRuns(fd: number, runs: readonly PhysicalRange[]): number {
    const writer = new VectorWriter(fd);
    for (const run of runs) {
      for (let at = run.physical; at < run.physical + run.length; ) {
        const segment = this.#segments.find(at);
        if (segment === undefined) throw this.#absent(at);
        const length = Math.min(run.physical + run.length, segment.physical + segment.length) - at;
        writer.add(segment.mapping.get(at).address + segment.offset + (at - segment.physical), length);
        at += length;
      }
    }
    writer.flush();
    return writer.written;
  }

  close(): void {
    for (const { mapping } of this.#segments.ranges) mapping.unmap();
  }
}
