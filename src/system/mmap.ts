import { MAP_SHARED, PROT_READ } from './abi.ts';
import { checked, libcFunction } from './libc.ts';

/** IOV_MAX of Linux: iovecs per {@link writev}. */
export const IOV_MAX = 1024;

const mmap = libcFunction<
  [address: null, length: number, prot: number, flags: number, fd: number, offset: number]
>('int64_t mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)');
const munmap = libcFunction<[address: number, length: number]>('int munmap(uint64_t addr, size_t length)');

/**
 * writev(2): `iov` is `count` of `struct iovec`, each an address and a length in little-endian words, low and
 * high.
 */
export const writev = libcFunction<[fd: number, iov: Uint32Array, count: number]>(
  'int64_t writev(int fd, void *iov, int count)',
);

/**
 * Maps a part of a file for reading, shared (mmap(2)).
 * @param offset of the file, on the boundary of a page
 * @returns the address. Touching what lies past the end of the file is SIGBUS, which no JavaScript catches
 * @throws SystemCallError
 */
export function mapShared(fd: number, offset: number, length: number): number {
  return checked('mmap', mmap(null, length, PROT_READ, MAP_SHARED, fd, offset));
}

/** Takes a mapping away (munmap(2)). @throws SystemCallError */
export function unmap(address: number, length: number): void {
  checked('munmap', munmap(address, length));
}
