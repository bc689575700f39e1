import { closeSync } from 'node:fs';
import { libcFunction } from './libc.ts';

/** Numbers of x86-64. */
const SYS_pidfd_open = 434;
const SYS_pidfd_getfd = 438;

/** Commands of {@link fcntl} (fcntl(2)). */
export const F_SETFL = 4;
export const F_SETPIPE_SZ = 1031;

const syscall = libcFunction<[number: number, first: number, second: number, third: number]>(
  'long syscall(long number, long first, long second, long third)',
);

/** fcntl(2). */
export const fcntl = libcFunction<[fd: number, command: number, argument: number]>(
  'int fcntl(int fd, int command, long argument)',
);

/** lseek(2): `whence` is 0 for an offset, 1 for one from where the file is now. */
export const seek = libcFunction<[fd: number, offset: number, whence: number]>(
  'int64_t lseek(int fd, int64_t offset, int whence)',
);

/** ioctl(2), of the requests that take a number. */
export const ioctl = libcFunction<[fd: number, request: number, argument: number]>(
  'int ioctl(int fd, unsigned long request, long argument)',
);

/** ioctl(2), of the requests that read or fill memory. */
export const ioctlMemory = libcFunction<[fd: number, request: number, memory: Uint8Array]>(
  'int ioctl(int fd, unsigned long request, void *memory)',
);

const poll = libcFunction<[fds: Uint8Array, count: number, timeoutMilliseconds: number]>(
  'int poll(void *fds, unsigned long count, int timeout)',
);
const POLLIN = 1;

/** Waits until a descriptor can be read (poll(2)). @returns whether it can be */
export function waitUntilReadable(fd: number, timeoutMilliseconds: number): boolean {
  const pollfd = Buffer.alloc(8);
  pollfd.writeInt32LE(fd, 0);
  pollfd.writeInt16LE(POLLIN, 4);
  return poll(pollfd, 1, timeoutMilliseconds) === 1;
}

/**
 * A process's own open file, not a copy, as a descriptor of ours (pidfd_getfd(2)).
 * @returns an errno with its sign changed if there is no such process or descriptor, or we may not take it
 */
export function takeDescriptor(pid: number, fd: number): number {
  const pidfd = syscall(SYS_pidfd_open, pid, 0, 0);
  if (pidfd < 0) return pidfd;
  try {
    return syscall(SYS_pidfd_getfd, pidfd, fd, 0);
  } finally {
    closeSync(pidfd);
  }
}
