import { closeSync, fstatSync, openSync, readSync, statfsSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemCallError } from '../system/errno.ts';
import { TMPFS_MAGIC } from '../system/file-systems.ts';
import { memoryAt } from '../system/libc.ts';
import { IOV_MAX, mapShared, unmap, writev } from '../system/mmap.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import { FormatError } from './errors.ts';

const { errno } = constants;

/** A part of a file in this program's memory: `data` covers `length` bytes from file offset `fileOffset`. */
export interface FileMapping {
  readonly fileOffset: number;
  readonly length: number;
  /** Address of the first byte in this process: for iovecs. */
  readonly address: number;
  readonly data: DataView;
  unmap(): void;
}

function map(path: string, fd: number, offset: number, length: number): number {
  try {
    return mapShared(fd, offset, length);
  } catch (error) {
    throw new FormatError(path, `${length} bytes of it cannot be mapped (${messageOf(error)})`);
  }
}

/**
 * Maps a part of a file for reading (mmap(2), shared). `fileOffset` may be any number; the mapping starts at
 * the page boundary below it. The caller guarantees that the file holds these bytes: touching a mapping past
 * the end of its file is SIGBUS, which no JavaScript catches.
 */
export function mapFile(path: string, fd: number, fileOffset: number, length: number): FileMapping {
  const slack = fileOffset % PAGE_SIZE;
  const mapped = length + slack;
  const base = map(path, fd, fileOffset - slack, mapped);
  let data: DataView | undefined;
  return {
    fileOffset,
    length,
    address: base + slack,
    // Made for those only that look at it: V8 counts the bytes behind it as its own, and collects garbage for
    // them.
    get data() {
      data ??= new DataView(memoryAt(base, mapped), slack, length);
      return data;
    },
    unmap: () => unmap(base, mapped),
  };
}

/** Words of an iovec: the address, low and high, and the length. */
const IOVEC_WORDS = 4;
const WORD = 0x1_0000_0000;

/** Writes memory of this process to a file, IOV_MAX pieces with one writev call. */
export class VectorWriter {
  readonly #fd: number;
  readonly #iov = new Uint32Array(IOV_MAX * IOVEC_WORDS);
  #count = 0;
  #waiting = 0;
  #written = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Bytes written so far. */
  get written(): number {
    return this.#written;
  }

  /** Adds memory, which has to stay mapped until it is written: at the latest by `flush`. */
  add(address: number, length: number): void {
    if (this.#count === IOV_MAX) this.flush();
    this.#set(this.#count++, address, length);
    this.#waiting += length;
  }

  /** Writes all that was added. Throws a SystemCallError if the file takes no more. */
  flush(): void {
    let next = 0;
    while (this.#waiting > 0) {
      const rest = this.#iov.subarray(next * IOVEC_WORDS, this.#count * IOVEC_WORDS);
      const done = writev(this.#fd, rest, this.#count - next);
      if (done === -errno.EINTR) continue;
      if (done <= 0) throw new SystemCallError('writev', done < 0 ? -done : errno.EIO);
      this.#waiting -= done;
      this.#written += done;
      next = this.#skip(next, done);
    }
    this.#count = 0;
  }

  /** The first piece that is not wholly written, cut to what is left of it. */
  #skip(first: number, bytes: number): number {
    let next = first;
    for (let left = bytes; left > 0; next++) {
      const at = next * IOVEC_WORDS;
      const length = this.#iov[at + 2]! + this.#iov[at + 3]! * WORD;
      if (left < length) {
        this.#set(next, this.#iov[at]! + this.#iov[at + 1]! * WORD + left, length - left);
        break;
      }
      left -= length;
    }
    return next;
  }

  #set(index: number, address: number, length: number): void {
    const at = index * IOVEC_WORDS;
    this.#iov[at] = address;
    this.#iov[at + 1] = Math.floor(address / WORD);
    this.#iov[at + 2] = length;
    this.#iov[at + 3] = Math.floor(length / WORD);
  }
}

/** A file opened for reading: small headers are read, memory is mapped. */
export interface VmcoreFile {
  readonly path: string;
  readonly fd: number;
  /**
   * Size when it was opened. A file that shrinks afterwards is not supported: reading it may kill the
   * process.
   */
  readonly sizeBytes: number;
  /** Reads exactly `length` bytes; throws a FormatError naming `what` if the file is too short. */
  readExact(offset: number, length: number, what: string): Buffer;
  close(): void;
}

/** Why a file could not be opened, in words. */
export function openProblem(error: unknown): string {
  const code = codeOf(error);
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EISDIR') return 'is a directory';
  if (code === 'EACCES') return 'permission denied; run as root';
  return messageOf(error);
}

const BLOCK = 512;

/**
 * What keeps a file from being mapped: tmpfs gives a hole that is read through a mapping a page of its own,
 * and kills the reader with SIGBUS if it has none left. A size of no blocks is a tmpfs without a limit.
 */
export function holesProblem(
  file: { readonly size: number; readonly blocks: number },
  { type, blocks, bavail, bsize }: Readonly<Record<'type' | 'blocks' | 'bavail' | 'bsize', number>>,
): string | undefined {
  const holes = file.size - file.blocks * BLOCK;
  const free = bavail * bsize;
  if (type !== TMPFS_MAGIC || blocks === 0 || holes <= free) return undefined;
  return (
    `has holes of ${mebibytes(holes)} MiB, which take room when they are read, on a tmpfs with ${mebibytes(free)} MiB free: ` +
    'copy it to a disk, or free that much'
  );
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}

/**
 * Opens a vmcore. Throws a FormatError if that fails or it is no regular file (`/proc/vmcore` is one: procfs
 * gives it the size of the dead kernel's memory).
 */
export function openFile(path: string): VmcoreFile {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new FormatError(path, `cannot be opened: ${openProblem(error)}`);
  }
  const stat = fstatSync(fd);
  const problem = stat.isFile() ? holesProblem(stat, statfsSync(path)) : 'is not a regular file';
  if (problem !== undefined) {
    closeSync(fd);
    throw new FormatError(path, problem);
  }
  return {
    path,
    fd,
    sizeBytes: stat.size,
    readExact: (offset, length, what) => {
      if (offset < 0 || length < 0 || offset + length > stat.size) {
        throw new FormatError(
          path,
          `truncated: ${what} needs bytes ${offset} to ${offset + length}, file has ${stat.size}`,
        );
      }
      const buffer = Buffer.alloc(length);
      for (let at = 0; at < length; ) {
        const got = readSync(fd, buffer, at, length - at, offset + at);
        if (got === 0) throw new FormatError(path, `truncated: ${what} ends at byte ${offset + at}`);
        at += got;
      }
      return buffer;
    },
    close: () => closeSync(fd),
  };
}
