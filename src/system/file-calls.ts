import { checked, libcFunction } from './libc.ts';

const NANOSECONDS = 1_000_000_000n;
const FADV_DONTNEED = 4;

const mkfifo = libcFunction<[path: string, mode: number]>('int mkfifo(const char *path, uint32_t mode)');
const futimens = libcFunction<[fd: number, times: Uint8Array]>('int futimens(int fd, const uint8_t *times)');
const posixFadvise = libcFunction<[fd: number, offset: number, length: number, advice: number]>(
  'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
);
const renameat2 = libcFunction<
  [fromDirectory: number, from: string, toDirectory: number, to: string, flags: number]
>('int renameat2(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, unsigned int flags)');

/** Makes a FIFO of which there is none yet (mkfifo(3)). @throws SystemCallError */
export function makeFifo(path: string, mode: number): void {
  checked('mkfifo', mkfifo(path, mode));
}

/** Sets both times of an open file, to the nanosecond since 1970 (futimens(3)). @throws SystemCallError */
export function setTimes(fd: number, accessedNanoseconds: bigint, modifiedNanoseconds: bigint): void {
  const times = Buffer.alloc(32);
  for (const [i, time] of [accessedNanoseconds, modifiedNanoseconds].entries()) {
    const nanoseconds = ((time % NANOSECONDS) + NANOSECONDS) % NANOSECONDS;
    times.writeBigInt64LE((time - nanoseconds) / NANOSECONDS, i * 16);
    times.writeBigInt64LE(nanoseconds, i * 16 + 8);
  }
  checked('futimens', futimens(fd, times));
}

/**
 * Asks the kernel to let go of what it keeps of an open file in its page cache (posix_fadvise(2)); it need
 * not.
 */
export function forgetCached(fd: number, offset: number, length: number): void {
  posixFadvise(fd, offset, length, FADV_DONTNEED);
}

/** RENAME_* of linux/fs.h: fails if the new name is taken; the two names change places. */
const renameFlags = { noreplace: 1, exchange: 2 } as const;

/** Renames within an open directory, at once (renameat2(2)). @returns 0, or an errno with its sign changed */
export function renameIn(
  directoryFd: number,
  from: string,
  to: string,
  how: keyof typeof renameFlags,
): number {
  return renameat2(directoryFd, from, directoryFd, to, renameFlags[how]);
}
