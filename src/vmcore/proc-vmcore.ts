import { AddressError, FormatError } from './errors.ts';
import { type FileMapping, mapFile, VectorWriter, type VmcoreFile } from './mapping.ts';
import { type PhysicalMemory, type PhysicalRange, RangeTable } from './physical.ts';
import type { Window } from './view.ts';

/**
 * What is mapped at a time. Mapping `/proc/vmcore` fills page tables at once, out of the crash kernel's
 * little memory: 4 KiB for a piece. The kernel keeps its own pages, page tables among them, together in
 * blocks of this size (pageblock_order), away from those of processes. No piece reaches over the end of a
 * memory block of 128 MiB: what is partly ordinary memory again, partly old memory, cannot be mapped.
 */
const PIECE = 2 << 20;
/** Pieces that stay mapped for memory that is only written out: 4 GiB, 8 MiB of page tables. */
const PASSING_PIECES = 2048;

/** A range of physical memory and where it is in the file. */
export interface FileRange extends PhysicalRange {
  readonly offset: number;
}

export interface PieceSizes {
  readonly piece: number;
  readonly passing: number;
}

/**
 * The dead machine's memory in the crash world. Pieces with something that is looked at stay mapped, because
 * what was looked at may be looked at again; of those with memory that is only written out, the ones mapped
 * last.
 */
export class ProcVmcoreMemory implements PhysicalMemory {
  readonly ranges: readonly FileRange[];
  readonly #table: RangeTable<FileRange>;
  readonly #file: VmcoreFile;
  readonly #sizes: PieceSizes;
  readonly #kept = new Map<number, FileMapping>();
  /** The one that was mapped first comes first. */
  readonly #passing = new Map<number, FileMapping>();
  #isClosed = false;

  constructor(
    file: VmcoreFile,
    ranges: readonly FileRange[],
    sizes: PieceSizes = { piece: PIECE, passing: PASSING_PIECES },
  ) {
    this.#file = file;
    this.#table = new RangeTable(ranges);
    this.ranges = this.#table.ranges;
    this.#sizes = sizes;
  }

  has(physical: number, length: number): boolean {
    return this.#table.cover(physical, length);
  }

  contiguous(physical: number, length: number): Window | undefined {
    const range = this.#table.find(physical);
    if (range === undefined || physical + length > this.#pieceEnd(range, physical)) return undefined;
    const { data } = this.#keep(range, physical);
    return { data, offset: physical - this.#pieceStart(range, physical) };
  }

  window(physical: number, length: number): Window {
    const window = this.contiguous(physical, length);
    if (window !== undefined) return window;
    const copy = this.#copy(physical, length);
    return { data: new DataView(copy.buffer, copy.byteOffset, length), offset: 0 };
  }

  view(physical: number, length: number): Uint8Array {
    const { data, offset } = this.window(physical, length);
    return new Uint8Array(data.buffer, data.byteOffset + offset, length);
  }

  withView<T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T {
    const range = this.#require(physical);
    if (physical + length > this.#pieceEnd(range, physical)) return use(this.#copy(physical, length));
    const { data } = this.#pass(range, physical);
    const at = physical - this.#pieceStart(range, physical);
    return use(new Uint8Array(data.buffer, data.byteOffset + at, length));
  }

  writeRuns(fd: number, runs: readonly PhysicalRange[]): number {
    const writer = new VectorWriter(fd);
    for (const run of runs) {
      for (let at = run.physical; at < run.physical + run.length; ) {
        const range = this.#require(at);
        const length = Math.min(run.physical + run.length, this.#pieceEnd(range, at)) - at;
        const { address } = this.#pass(range, at, writer);
        writer.add(address + (at - this.#pieceStart(range, at)), length);
        at += length;
      }
    }
    writer.flush();
    return writer.written;
  }

  close(): void {
    for (const mapping of [...this.#kept.values(), ...this.#passing.values()]) mapping.unmap();
    this.#isClosed = true;
    this.#kept.clear();
    this.#passing.clear();
  }

  /** Memory that lies in several pieces. */
  #copy(physical: number, length: number): Buffer {
    if (!this.has(physical, length)) throw absent(physical);
    const copy = Buffer.alloc(length);
    for (let at = physical; at < physical + length; ) {
      const part = Math.min(physical + length, this.#pieceEnd(this.#require(at), at)) - at;
      const to = at - physical;
      this.withView(at, part, (bytes) => copy.set(bytes, to));
      at += part;
    }
    return copy;
  }

  #keep(range: FileRange, physical: number): FileMapping {
    const start = this.#pieceStart(range, physical);
    let mapping = this.#kept.get(start);
    if (mapping === undefined) {
      mapping = this.#passing.get(start) ?? this.#map(range, physical);
      this.#passing.delete(start);
      this.#kept.set(start, mapping);
    }
    return mapping;
  }

  /** What waits in `writer` is written before its mapping goes. */
  #pass(range: FileRange, physical: number, writer?: VectorWriter): FileMapping {
    const start = this.#pieceStart(range, physical);
    const known = this.#kept.get(start) ?? this.#passing.get(start);
    if (known !== undefined) return known;
    if (this.#passing.size >= this.#sizes.passing) {
      writer?.flush();
      const [first, mapping] = this.#passing.entries().next().value!;
      mapping.unmap();
      this.#passing.delete(first);
    }
    const mapping = this.#map(range, physical);
    this.#passing.set(start, mapping);
    return mapping;
  }

  #map(range: FileRange, physical: number): FileMapping {
    const start = this.#pieceStart(range, physical);
    const length = this.#pieceEnd(range, physical) - start;
    if (this.#isClosed) throw new AddressError(physical, 'is asked for after the dump was closed (physical)');
    try {
      return mapFile(this.#file.path, this.#file.fd, range.offset + (start - range.physical), length);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      throw new AddressError(physical, `cannot be mapped (physical; ${error.message})`);
    }
  }

  #pieceStart(range: FileRange, physical: number): number {
    const { piece } = this.#sizes;
    return Math.max(range.physical, Math.floor(physical / piece) * piece);
  }

  #pieceEnd({ physical: start, length }: FileRange, physical: number): number {
    const { piece } = this.#sizes;
    return Math.min(start + length, (Math.floor(physical / piece) + 1) * piece);
  }

  #require(physical: number): FileRange {
    const range = this.#table.find(physical);
    if (range === undefined) throw absent(physical);
    return range;
  }
}

function absent(physical: number): AddressError {
  return new AddressError(physical, 'is not in the dump (physical)');
}
