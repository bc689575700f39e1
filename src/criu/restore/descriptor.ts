import { closeSync } from 'node:fs';
import koffi from 'koffi';

const SYS_pidfd_open = 434;
const SYS_pidfd_getfd = 438;

const libc = koffi.load('libc.so.6');
const syscall = libc.func('long syscall(long number, long first, long second, long third)');

/** A process's own open file, as a descriptor of ours; -1 if there is none. */
export function takeDescriptor(pid: number, fd: number): number {
  const pidfd = Number(syscall(SYS_pidfd_open, pid, 0, 0));
  if (pidfd < 0) return -1;
  try {
    return Number(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
  } finally {
    closeSync(pidfd);
  }
}
