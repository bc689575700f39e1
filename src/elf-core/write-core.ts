import { closeSync, constants, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import type { Mm } from '../linux/mm-types.ts';
import { UserMemory } from '../linux/readers/user-memory.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { PhysicalRange } from '../vmcore/physical.ts';
import { type CoreArea, readAreas } from './areas.ts';
import { type CoreSegment, coreHeaders } from './headers.ts';
import { coreNotes, type MappedRange } from './notes.ts';
import { type Absence, type Piece, piecesOf } from './pages.ts';
import { findForCore } from './process.ts';

/** Pages of a core by what became of them. */
export type PageCounts = Record<'memory' | 'zeros' | Absence, number>;

/** What is in a core that was written. */
export interface WrittenCore {
  readonly pid: number;
  readonly comm: string;
  /** In the core's order. */
  readonly threads: readonly { readonly tid: number; readonly comm: string }[];
  readonly areas: number;
  readonly pages: PageCounts;
  /** Of the file, with its holes. */
  readonly sizeBytes: number;
  /** What memory had and the core does not have: sentences; empty if nothing. */
  readonly missing: readonly string[];
  /** What may be older than the panic. */
  readonly notes: readonly string[];
}

/** The core could not be written; the message names the file. */
export class CoreWriteError extends Error {
  override readonly name = 'CoreWriteError';
}

/** Runs that are handed on at a time: bounds the memory for the list, not the copy. */
const MAX_RUNS = 4096;
/** With O_APPEND the file's end is where everything goes: a hole is made by moving it. */
const NEW_FILE =
  constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_APPEND;

/** A file that grows by bytes, by runs of old memory and by holes. */
class SparseFile {
  readonly #path: string;
  readonly #fd: number;
  #sizeBytes = 0;

  constructor(path: string) {
    this.#path = path;
    this.#fd = this.#named(() => openSync(path, NEW_FILE, 0o600));
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  bytes(data: Uint8Array): void {
    this.#named(() => {
      for (let done = 0; done < data.length; ) done += writeSync(this.#fd, data, done);
    });
    this.#sizeBytes += data.length;
  }

  runs(kernel: Kernel, runs: readonly PhysicalRange[]): void {
    const expected = runs.reduce((sum, { length }) => sum + length, 0);
    const written = this.#named(() => kernel.physical.writeRuns(this.#fd, runs));
    if (written !== expected) {
      throw new CoreWriteError(`${this.#path}: ${written} of ${expected} bytes of old memory were written`);
    }
    this.#sizeBytes += written;
  }

  hole(length: number): void {
    this.#named(() => ftruncateSync(this.#fd, this.#sizeBytes + length));
    this.#sizeBytes += length;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #named<T>(write: () => T): T {
    try {
      return write();
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      throw new CoreWriteError(`${this.#path} cannot be written: ${messageOf(error)}`);
    }
  }
}

function hasContent({ kind }: Piece): boolean {
  return kind === 'memory' || kind === 'zeros';
}

/** The segments of an area: pages that are there, then pages that are not, again and again. */
function* segmentsOf(area: CoreArea, pieces: Iterable<Piece>): Generator<CoreSegment> {
  let segment = { start: area.start, flags: area.flags, fileBytes: 0, memoryBytes: 0 };
  for (const piece of pieces) {
    const bytes = piece.pages * PAGE_SIZE;
    if (hasContent(piece)) {
      if (segment.memoryBytes > segment.fileBytes) {
        yield segment;
        segment = { start: piece.address, flags: area.flags, fileBytes: 0, memoryBytes: 0 };
      }
      segment.fileBytes += bytes;
    }
    segment.memoryBytes += bytes;
  }
  yield segment;
}

function* counted(pieces: Iterable<Piece>, counts: PageCounts): Generator<Piece> {
  for (const piece of pieces) {
    counts[piece.kind] += piece.pages;
    yield piece;
  }
}

/**
 * Writes what there is of all areas, one after the other. Old memory goes from the mapping to the file
 * (writev).
 */
function writePages(kernel: Kernel, mm: Mm, areas: readonly CoreArea[], file: SparseFile): void {
  let batch: PhysicalRange[] = [];
  const flush = (): void => {
    if (batch.length > 0) file.runs(kernel, batch);
    batch = [];
  };
  for (const area of areas) {
    for (const piece of piecesOf(kernel, mm, area)) {
      const length = piece.pages * PAGE_SIZE;
      if (piece.kind === 'memory') batch.push({ physical: piece.physical, length });
      if (batch.length >= MAX_RUNS || piece.kind === 'zeros') flush();
      if (piece.kind === 'zeros') file.hole(length);
    }
  }
  flush();
}

function mappedRanges(areas: readonly CoreArea[]): MappedRange[] {
  return areas.flatMap(({ start, end, pgoff, path }) =>
    path === undefined ? [] : [{ start, end, offset: pgoff * PAGE_SIZE, path }],
  );
}

function lackOf({ swapped, notInDump, unreadable }: PageCounts): string[] {
  const say = (pages: number, one: string, many: string): string[] =>
    pages === 0 ? [] : [pages === 1 ? `1 page ${one}` : `${pages} pages ${many}`];
  const why = 'what leads there is damaged or not in the dump';
  return [
    ...say(swapped, 'was in swap, or being moved', 'were in swap, or being moved'),
    ...say(notInDump, 'is not in the dump', 'are not in the dump'),
    ...say(unreadable, `cannot be found: ${why}`, `cannot be found: ${why}`),
  ];
}

/** Has a new file written, or leaves nothing of it behind. */
function writeWhole(path: string, write: (file: SparseFile) => void): number {
  const file = new SparseFile(path);
  try {
    write(file);
    return file.sizeBytes;
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  } finally {
    file.close();
  }
}

/**
 * Writes an ELF core of one process, as a debugger reads it: registers of all threads, the mapped files, and
 * of its memory what its /proc/PID/coredump_filter wants and old memory has. It does not matter whether the
 * process could be brought back. What is not there is no part of the file (p_filesz is smaller than p_memsz);
 * pages that nobody has touched are holes in it.
 * @param pid of a process, or of one of its threads, which is then the core's first
 * @param path of a file that does not exist yet
 * @throws NoCoreError if there is nothing that a core could have (a kernel thread, a zombie); CoreWriteError
 * if the file cannot be written; VmcoreError if there is no such process, or nothing of it can be read
 */
export function writeCore(kernel: Kernel, pid: number, path: string): WrittenCore {
  const { process, mm, missing, notes } = findForCore(kernel, pid);
  const { areas, missing: missingAreas } = readAreas(kernel, mm, new UserMemory(kernel, mm));
  const pages = { memory: 0, zeros: 0, unwanted: 0, inFile: 0, swapped: 0, notInDump: 0, unreadable: 0 };
  const segments = areas.flatMap((area) => [...segmentsOf(area, counted(piecesOf(kernel, mm, area), pages))]);
  const { architecture } = kernel;
  const noteBytes = coreNotes(process, mappedRanges(areas), architecture.notes);
  const sizeBytes = writeWhole(path, (file) => {
    const headers = coreHeaders(architecture, noteBytes, segments);
    file.bytes(headers);
    writePages(kernel, mm, areas, file);
    const expected = headers.length + segments.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
    if (file.sizeBytes !== expected) {
      throw new CoreWriteError(`${path}: ${kernel.path} has changed while the core was written`);
    }
  });
  return {
    ...{ pid: process.pid, comm: process.comm, areas: areas.length, pages, sizeBytes, notes },
    threads: process.threads.map(({ tid, comm }) => ({ tid, comm })),
    missing: [...missing, ...missingAreas, ...lackOf(pages)],
  };
}
