import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { guestClock, longestWait } from '../../lab/guest-time.ts';

suite('the time that a guest had', () => {
  test('is without what its busiest-waiting thread waited for a processor', () => {
    const before = new Map([
      ['1', 4],
      ['2', 10],
    ]);
    assert.equal(
      longestWait(
        before,
        new Map([
          ['1', 9],
          ['2', 11],
          ['3', 2],
        ]),
      ),
      5,
    );
    assert.equal(longestWait(before, before), 0);
  });

  test('is no more than the real time, and real time where the kernel does not tell', () => {
    let now = 100;
    const own = guestClock(process.pid, () => now);
    const nobody = guestClock(0, () => now);
    now = 107;
    assert.ok(own() <= 7 && own() > 0);
    assert.equal(nobody(), 7);
  });
});
