import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { wallClockTimer } from '../../src/capture/files/anonymous.ts';
import { CLOCK } from '../../src/linux/timekeeping.ts';
import { type TimerFdContext, timerfdFlags, timerfdState } from '../../src/linux/timerfd.ts';

const ABSTIME = timerfdFlags.absolute;

/** A timerfd that was made and never set, at 1000 ns of its clock. */
function timerOf(over: Partial<TimerFdContext>): TimerFdContext {
  return {
    ...{ clock: CLOCK.realtime, interval: 0n, ticks: 0n, settimeFlags: 0 },
    ...{ hasExpired: false, isQueued: false, expires: 0n, now: 1000n },
    ...over,
  };
}

function shown(over: Partial<TimerFdContext>): { remaining: bigint; ticks: bigint } {
  const { remainingNanoseconds: remaining, ticks } = timerfdState(timerOf(over));
  return { remaining, ticks };
}

describe('a timerfd', () => {
  it('has nothing left if it was never set, is disarmed, or has gone off, read or not', () => {
    assert.deepEqual(shown({}), { remaining: 0n, ticks: 0n });
    assert.deepEqual(shown({ expires: 2000n }), { remaining: 0n, ticks: 0n });
    assert.deepEqual(shown({ expires: 900n }), { remaining: 0n, ticks: 0n });
    assert.deepEqual(shown({ expires: 900n, hasExpired: true, ticks: 1n }), { remaining: 0n, ticks: 1n });
  });

  it('has the time to its end left, and at least a nanosecond if its interrupt is late', () => {
    assert.deepEqual(shown({ isQueued: true, expires: 1500n }), { remaining: 500n, ticks: 0n });
    assert.deepEqual(shown({ isQueued: true, expires: 900n }), { remaining: 1n, ticks: 0n });
  });

  it('has the periods that it missed counted', () => {
    const periodic = { interval: 100n, hasExpired: true, expires: 750n, ticks: 1n };
    assert.deepEqual(shown(periodic), { remaining: 50n, ticks: 3n });
  });
});

describe('a timerfd that was set to a time of day', () => {
  const absolute = (over: Partial<TimerFdContext>) =>
    wallClockTimer(timerOf({ settimeFlags: ABSTIME, ...over }));

  it('stays disarmed once it has gone off, with what was not read', () => {
    const fired = { flags: ABSTIME, expiresNanoseconds: 0n, ticks: 0n, waitsForRead: false };
    assert.deepEqual(absolute({ expires: 900n }), fired);
    assert.deepEqual(absolute({ expires: 900n, hasExpired: true, ticks: 1n }), { ...fired, ticks: 1n });
  });

  it('keeps its time of day, and if it waits to be read the one that it has gone off at', () => {
    const pending = { flags: ABSTIME, expiresNanoseconds: 1500n, ticks: 0n, waitsForRead: false };
    assert.deepEqual(absolute({ isQueued: true, expires: 1500n }), pending);
    const waits = { interval: 100n, hasExpired: true, expires: 750n, ticks: 1n };
    const expected = { flags: ABSTIME, expiresNanoseconds: 750n, ticks: 1n, waitsForRead: true };
    assert.deepEqual(absolute(waits), expected);
  });

  it('is one on the wall clock only', () => {
    assert.equal(absolute({ clock: CLOCK.monotonic, isQueued: true, expires: 1500n }), undefined);
    assert.equal(wallClockTimer(timerOf({ isQueued: true, expires: 1500n })), undefined);
  });
});
