import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { RestorePlan } from '../../../src/criu/images/plan/restore-plan.ts';
import { setWallClockTimers } from '../../../src/criu/restore/wall-clock-timers.ts';
import { libcFunction } from '../../../src/system/libc.ts';
import { lateNothing } from '../processes.ts';

type Timer = RestorePlan['wallClockTimers'][number];

const [TFD_NONBLOCK, TFD_TIMER_ABSTIME] = [0o4000, 1];
const HOUR = 3600;

const create = libcFunction<[clock: number, flags: number]>('int timerfd_create(int clock, int flags)');
const getTime = libcFunction<[fd: number, value: Uint8Array]>('int timerfd_gettime(int fd, void *value)');
const read = libcFunction<[fd: number, buffer: Uint8Array, size: number]>(
  'long read(int fd, void *buffer, size_t size)',
);

/**
 * A timerfd of this process, set as the plan says; its count at the first read, and seconds of interval and
 * until it goes off.
 */
function whatIsSet(over: Partial<Timer>): { count: bigint | 'nothing'; interval: bigint; left: bigint } {
  const fd = create(0, TFD_NONBLOCK);
  const none = { seconds: 0, nanoseconds: 0 };
  const timer: Timer = {
    ...{ pid: process.pid, fd, flags: TFD_TIMER_ABSTIME, expires: none, interval: none },
    ...{ ticks: 0, waitsForRead: false },
    ...over,
  };
  assert.deepEqual(setWallClockTimers({ ...lateNothing, wallClockTimers: [timer] }), []);
  const count = Buffer.alloc(8);
  const got = read(fd, count, 8);
  const value = Buffer.alloc(32);
  assert.equal(getTime(fd, value), 0);
  closeSync(fd);
  return {
    count: got === 8 ? count.readBigUInt64LE() : 'nothing',
    interval: value.readBigInt64LE(0),
    left: value.readBigInt64LE(16),
  };
}

describe('a timer on the wall clock', () => {
  const now = Math.floor(Date.now() / 1000);

  it('does not go off again if it had gone off and was read', () => {
    assert.deepEqual(whatIsSet({}), { count: 'nothing', interval: 0n, left: 0n });
  });

  it('can be read if it had gone off and was not read', () => {
    assert.deepEqual(whatIsSet({ ticks: 1 }), { count: 1n, interval: 0n, left: 0n });
  });

  it('goes off at its time of day, however long the system was away', () => {
    const { count, left } = whatIsSet({ expires: { seconds: now + HOUR, nanoseconds: 0 } });
    assert.equal(count, 'nothing');
    assert.ok(left <= HOUR && left > HOUR / 2, `${left} s`);
  });

  it('that is periodic and waits to be read counts what it misses, and goes on in its rhythm', () => {
    const waits = { interval: { seconds: HOUR, nanoseconds: 0 }, ticks: 1, waitsForRead: true };
    const expires = { seconds: now - 2 * HOUR - HOUR / 2, nanoseconds: 0 };
    const { count, interval, left } = whatIsSet({ ...waits, expires });
    assert.deepEqual({ count, interval }, { count: 3n, interval: BigInt(HOUR) });
    assert.ok(left > 0 && left <= HOUR / 2, `${left} s`);
  });

  it('that is not there any more is told', () => {
    const none = { seconds: 0, nanoseconds: 0 };
    const timer = { pid: process.pid, fd: 9999, flags: 1, expires: none, interval: none, ticks: 0 };
    const [note = ''] = setWallClockTimers({
      ...lateNothing,
      wallClockTimers: [{ ...timer, waitsForRead: false }],
    });
    assert.match(note, /the timer fd 9999 of process \d+ goes off later/);
  });
});
