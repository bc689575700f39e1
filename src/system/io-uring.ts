import { libcFunction } from './libc.ts';

/** What io_uring_setup(2) is asked for: IORING_SETUP_* of include/uapi/linux/io_uring.h, like all below. */
export const ringFlags = {
  iopoll: 1 << 0,
  sqpoll: 1 << 1,
  sqAffinity: 1 << 2,
  cqSize: 1 << 3,
  clamp: 1 << 4,
  attachWq: 1 << 5,
  disabled: 1 << 6,
  submitAll: 1 << 7,
  coopTaskrun: 1 << 8,
  taskrunFlag: 1 << 9,
  sqe128: 1 << 10,
  cqe32: 1 << 11,
  singleIssuer: 1 << 12,
  deferTaskrun: 1 << 13,
  // Since 6.5.
  noMmap: 1 << 14,
  registeredFdOnly: 1 << 15,
  // Since 6.6.
  noSqArray: 1 << 16,
} as const;

/** Where mmap(2) finds what (IORING_OFF_*); both rings are in one place, whichever is asked for. */
export const ringOffset = { requests: 0, completions: 0x800_0000, entries: 0x1000_0000 } as const;

/** Bytes of a request (struct io_uring_sqe), and of a completion (struct io_uring_cqe). */
export const SQE_BYTES = 64;
export const CQE_BYTES = 16;
/** Where a request has its flags, and the one that asks for no completion (IOSQE_CQE_SKIP_SUCCESS). */
export const SQE_FLAGS = 1;
export const SQE_SKIP_COMPLETION = 1 << 6;

/** Numbers of x86-64. */
export const SYS_io_uring_setup = 425;
export const SYS_io_uring_enter = 426;

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
