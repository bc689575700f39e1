import { closeSync } from 'node:fs';
import { moveWallClock, timerfdSettime } from '../../system/clocks.ts';
import { ioctlMemory, takeDescriptor, waitUntilReadable } from '../../system/descriptors.ts';
import { errnoText } from '../../system/errno.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';

type Timer = RestorePlan['wallClockTimers'][number];
type Timespec = Timer['expires'];

const TFD_TIMER_CANCEL_ON_SET = 2;
/** _IOW('T', 0, u64): sets the count of expirations (include/uapi/linux/timerfd.h). */
const TFD_IOC_SET_TICKS = 0x4008_5400;
/** A timer whose time has come goes off at its CPU's next interrupt. */
const GOES_OFF_MILLISECONDS = 1000;

function itimerspec(interval: Timespec, value: Timespec): Buffer {
  const bytes = Buffer.alloc(32);
  const words = [interval.seconds, interval.nanoseconds, value.seconds, value.nanoseconds];
  for (const [i, word] of words.entries()) bytes.writeBigInt64LE(BigInt(word), i * 8);
  return bytes;
}

/**
 * Sets a timer as its program had, for the same time of day. One that waits to be read goes off once more,
 * for the expiration that it waits with; the count is put right when it has.
 */
function setTimer(fd: number, { flags, expires, interval, ticks, waitsForRead }: Timer): boolean {
  if (timerfdSettime(fd, flags, itimerspec(interval, expires), null) !== 0) return false;
  if (waitsForRead && !waitUntilReadable(fd, GOES_OFF_MILLISECONDS)) return false;
  if (ticks === 0) return true;
  const count = Buffer.alloc(8);
  count.writeBigUInt64LE(BigInt(ticks));
  return ioctlMemory(fd, TFD_IOC_SET_TICKS, count) === 0;
}

/**
 * Tells those who asked for it (TFD_TIMER_CANCEL_ON_SET) that the wall clock is not where it was beside the
 * others, as the kernel does when it wakes from suspend: it is set a nanosecond further. Returns a sentence
 * if that is refused.
 */
function announceClock(): string[] {
  const result = moveWallClock(1n);
  return result < 0 ? [`timers are not told that the wall clock has gone on (${errnoText(-result)})`] : [];
}

/**
 * Sets absolute timers on the wall clock again, which CRIU makes relative ones. Their processes have to be
 * there and must not run yet. Returns a sentence for each that could not be set.
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
  return cancelled ? [...notes, ...announceClock()] : notes;
}
