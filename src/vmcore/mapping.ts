import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import koffi from 'koffi';
import { FormatError } from './errors.ts';

const PROT_READ = 1;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const PAGE = 4096;
const EINTR = 4;
/** IOV_MAX of Linux: iovecs per writev call. */
const IOV_MAX = 1024;

const libc = koffi.load('libc.so.6');
const mmap = libc.func('void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)');
const munmap = libc.func('int munmap(void *addr, size_t length)');
const writev = libc.func('int64_t writev(int fd, void *iov, int count)');

/** A part of a file in memory: `data` covers `length` bytes from file offset `fileOffset`. */
export interface Mapping {
  readonly fileOffset: number;
  readonly length: number;
  /** Address of the first byte in this process: for iovecs. */
  readonly address: bigint;
  readonly data: DataView;
  unmap(): void;
}

function addressOf(pointer: unknown, path: string, length: number): bigint {
  if (typeof pointer !== 'bigint' || pointer === MAP_FAILED || pointer === -1n) {
    throw new FormatError(path, `mmap of ${length} bytes failed (errno ${koffi.errno()})`);
  }
  return pointer;
}

/**
 * Maps a part of a file for reading (mmap(2), shared). `fileOffset` may be any number; the mapping starts at the page
 * boundary below it. The caller guarantees that the file holds these bytes: touching a mapping past the end of
 * its file is SIGBUS, which no JavaScript catches.
 */
export function mapFile(path: string, fd: number, fileOffset: number, length: number): Mapping {
  const slack = fileOffset % PAGE;
  const mapped = length + slack;
  const base = addressOf(mmap(null, mapped, PROT_READ, MAP_SHARED, fd, fileOffset - slack), path, mapped);
  const buffer = koffi.view(base, mapped);
  return {
    fileOffset,
    length,
    address: base + BigInt(slack),
    data: new DataView(buffer, slack, length),
    unmap: () => {
      munmap(base, mapped);
    },
  };
}

/** Writes memory of this process, given as (address, length) pairs, to a file; returns the bytes written. */
export function writeVectors(fd: number, vectors: readonly { address: bigint; length: number }[]): number {
  let total = 0;
  for (let first = 0; first < vectors.length; first += IOV_MAX) {
    total += writeBatch(fd, vectors.slice(first, first + IOV_MAX));
  }
  return total;
}

function writeBatch(fd: number, vectors: readonly { address: bigint; length: number }[]): number {
  const iov = new BigUint64Array(vectors.length * 2);
  let left = 0;
  vectors.forEach(({ address, length }, i) => {
    iov[i * 2] = address;
    iov[i * 2 + 1] = BigInt(length);
    left += length;
  });
  const total = left;
  let next = 0;
  while (left > 0) {
    const rest = iov.subarray(next * 2);
    const result: unknown = writev(fd, rest, rest.length / 2);
    let done = Number(result);
    if (!(done > 0)) {
      const errno = koffi.errno();
      if (done < 0 && errno === EINTR) continue;
      throw new Error(
        `writev to file descriptor ${fd} failed after ${total - left} of ${total} bytes (errno ${errno})`,
      );
    }
    left -= done;
    while (done > 0) {
      const length = Number(iov[next * 2 + 1]);
      if (done < length) {
        iov[next * 2] = (iov[next * 2] ?? 0n) + BigInt(done);
        iov[next * 2 + 1] = BigInt(length - done);
        break;
      }
      done -= length;
      next++;
    }
  }
  return total;
}

/** A file opened for reading: small headers are read, memory is mapped. */
export interface VmcoreFile {
  readonly path: string;
  readonly fd: number;
  /** Size when it was opened. A file that shrinks afterwards is not supported: reading it may kill the process. */
  readonly sizeBytes: number;
  /** Reads exactly `length` bytes; throws a FormatError naming `what` if the file is too short. */
  readExact(offset: number, length: number, what: string): Buffer;
  close(): void;
}

/** Why a file could not be opened, in words. */
export function openProblem(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EISDIR') return 'is a directory';
  if (code === 'EACCES') return 'permission denied; run as root';
  return error instanceof Error ? error.message : String(error);
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
  if (!stat.isFile()) {
    closeSync(fd);
    throw new FormatError(path, 'is not a regular file');
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
