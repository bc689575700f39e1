import { libcFunction } from './libc.ts';

const CLOCK_REALTIME = 0;
const ADJ_SETOFFSET = 0x0100;
const ADJ_NANO = 0x2000;
/** `struct timex` of x86-64: modes at 0, time.tv_usec at 80. */
const timex = { sizeBytes: 208, modes: 0, nanoseconds: 80 } as const;

const clockAdjtime = libcFunction<[clock: number, timex: Uint8Array]>(
  'int clock_adjtime(int clock, void *timex)',
);

/** timerfd_settime(2): `value` is a `struct itimerspec`; the one before is not asked for. */
export const timerfdSettime = libcFunction<[fd: number, flags: number, value: Uint8Array, old: null]>(
  'int timerfd_settime(int fd, int flags, void *value, void *old)',
);

/**
 * Sets the wall clock further (clock_adjtime(2)).
 * @returns an errno with its sign changed if that is refused
 */
export function moveWallClock(nanoseconds: bigint): number {
  const adjustment = Buffer.alloc(timex.sizeBytes);
  adjustment.writeUInt32LE(ADJ_SETOFFSET | ADJ_NANO, timex.modes);
  adjustment.writeBigInt64LE(nanoseconds, timex.nanoseconds);
  return clockAdjtime(CLOCK_REALTIME, adjustment);
}
