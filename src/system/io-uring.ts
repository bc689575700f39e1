import { libcFunction } from './libc.ts';

/** Number of x86-64. */
const SYS_io_uring_enter = 426;

const syscall = libcFunction<
  [
    number: number,
    fd: number,
    toSubmit: number,
    minComplete: number,
    flags: number,
    sig: number,
    size: number,
  ]
>('long syscall(long number, long fd, long toSubmit, long minComplete, long flags, long sig, long size)');

/**
 * Gives requests of a ring to the kernel, and waits for none (io_uring_enter(2)).
 * @returns how many, or an errno with its sign changed
 */
export function submitRequests(fd: number, count: number): number {
  return syscall(SYS_io_uring_enter, fd, count, 0, 0, 0, 0);
}
