import { O_CLOEXEC } from './abi.ts';
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

/** A name in an open directory. */
export type NameIn = readonly [directoryFd: number, name: string];

/** A path that leads to it for this program, whatever the path of its directory is by now. */
export function pathIn([directoryFd, name]: NameIn): string {
  return `/proc/self/fd/${directoryFd}/${name}`;
}

/**
 * Renames from one open directory to another of the same mount, whatever their paths are by now; never over
 * something else. @throws SystemCallError
 */
export function moveBetween(from: NameIn, to: NameIn): void {
  checked('renameat2', renameat2(...from, ...to, renameFlags.noreplace));
}

/** What node's constants do not have (uapi/asm-generic/fcntl.h). */
export const O_PATH = 0o10000000;

const SYS_openat2 = 437;
/** RESOLVE_* of linux/openat2.h. */
const resolve = { noMagicLinks: 2, noSymlinks: 4, beneath: 8 } as const;

const openat2 = libcFunction<
  [call: number, directoryFd: number, path: string, how: Uint8Array, howBytes: number]
>('long syscall(long call, int dirfd, const char *path, const uint8_t *how, size_t size)');

/**
 * Opens something below an open directory with no symbolic link on the way and none at the end, whoever
 * changes the directories meanwhile (openat2(2)). @throws SystemCallError
 */
export function openBelow(directoryFd: number, path: string, flags: number): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(resolve.noMagicLinks | resolve.noSymlinks | resolve.beneath), 16);
  return checked('openat2', openat2(SYS_openat2, directoryFd, path, how, how.length));
}

const SYNC_FILE_RANGE_WAIT_BEFORE = 1;

const syncFileRange = libcFunction<[fd: number, offset: number, length: number, flags: number]>(
  'int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)',
);

/**
 * Waits for the writing of an open file to its disk that is under way, begins none, and tells whether some
 * failed (sync_file_range(2)). A file that is opened anew is told of an error that nobody has been told of
 * (errseq_sample(), lib/errseq.c), as long as the kernel has kept its inode in memory.
 * @throws SystemCallError with what the disk or the file system said: ENOSPC, EIO
 */
export function waitForWriteBack(fd: number): void {
  checked('sync_file_range', syncFileRange(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE));
}
