import { closeSync } from 'node:fs';
import koffi from 'koffi';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { takeDescriptor } from './descriptor.ts';

type Timer = RestorePlan['wallClockTimers'][number];
type Timespec = Timer['expires'];

const TFD_TIMER_CANCEL_ON_SET = 2;
/** _IOW('T', 0, u64): sets the count of expirations (include/uapi/linux/timerfd.h). */
const TFD_IOC_SET_TICKS = 0x4008_5400;
const POLLIN = 1;
/** A timer whose time has come goes off at its CPU's next interrupt. */
const GOES_OFF_MILLISECONDS = 1000;
const CLOCK_REALTIME = 0;
const ADJ_SETOFFSET = 0x0100;
const ADJ_NANO = 0x2000;
/** `struct timex` of x86-64: modes at 0, time.tv_usec at 80. */
const timex = { sizeBytes: 208, modes: 0, nanoseconds: 80 } as const;

const libc = koffi.load('libc.so.6');
const setTime = libc.func('int timerfd_settime(int fd, int flags, void *value, void *old)');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
const poll = libc.func('int poll(void *fds, unsigned long count, int timeout)');
const adjustClock = libc.func('int clock_adjtime(int clock, void *timex)');

function itimerspec(interval: Timespec, value: Timespec): Buffer {
  const bytes = Buffer.alloc(32);
  const words = [interval.seconds, interval.nanoseconds, value.seconds, value.nanoseconds];
  for (const [i, word] of words.entries()) bytes.writeBigInt64LE(BigInt(word), i * 8);
  return bytes;
}

function waitUntilReadable(fd: number): boolean {
  const pollfd = Buffer.alloc(8);
  pollfd.writeInt32LE(fd, 0);
  pollfd.writeInt16LE(POLLIN, 4);
  return poll(pollfd, 1, GOES_OFF_MILLISECONDS) === 1;
}

/**
 * Sets a timer as its program had, for the same time of day. One that waits to be read goes off once more, for the expiration that it waits
 * with; the count is put right when it has.
 */
function setTimer(fd: number, { flags, expires, interval, ticks, waitsForRead }: Timer): boolean {
  if (setTime(fd, flags, itimerspec(interval, expires), null) !== 0) return false;
  if (waitsForRead && !waitUntilReadable(fd)) return false;
  if (ticks === 0) return true;
  const count = Buffer.alloc(8);
  count.writeBigUInt64LE(BigInt(ticks));
  return ioctl(fd, TFD_IOC_SET_TICKS, count) === 0;
}

/**
 * Tells those who asked for it (TFD_TIMER_CANCEL_ON_SET) that the wall clock is not where it was beside the others, as the kernel does when
 * it wakes from suspend: it is set a nanosecond further.
 */
function announceClock(): boolean {
  const adjustment = Buffer.alloc(timex.sizeBytes);
  adjustment.writeUInt32LE(ADJ_SETOFFSET | ADJ_NANO, timex.modes);
  adjustment.writeBigInt64LE(1n, timex.nanoseconds);
  return adjustClock(CLOCK_REALTIME, adjustment) >= 0;
}

/**
 * Sets absolute timers on the wall clock again, which CRIU makes relative ones. Their processes have to be there and must not run yet.
 * Returns a sentence for each that could not be set.
 */
export function setWallClockTimers({ wallClockTimers }: RestorePlan): string[] {
  const notes = wallClockTimers.flatMap((timer) => {
    const fd = takeDescriptor(timer.pid, timer.fd);
    const done = fd >= 0 && setTimer(fd, timer);
    if (fd >= 0) closeSync(fd);
    return done
      ? []
      : [`the timer fd ${timer.fd} of process ${timer.pid} goes off later by as long as the system was away`];
  });
  const cancelled = wallClockTimers.some(({ flags }) => (flags & TFD_TIMER_CANCEL_ON_SET) !== 0);
  if (cancelled && !announceClock())
    notes.push(`timers are not told that the wall clock has gone on (errno ${koffi.errno()})`);
  return notes;
}
