import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { guestClock, longestWait, stolenSeconds } from '../../lab/guest-time.ts';

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

  test('is without what a hypervisor took from the host', () => {
    const stat =
      'cpu  9 9 9 9 9 9 9 750 0 0\ncpu0 1 2 3 4 5 6 7 500 0 0\ncpu1 1 2 3 4 5 6 7 250 0 0\nintr 3 cpu2\n';
    assert.deepEqual(
      stolenSeconds(stat),
      new Map([
        ['cpu0', 5],
        ['cpu1', 2.5],
      ]),
    );
    assert.equal(stolenSeconds('cpu0 1 2 3 4\n').get('cpu0'), 0);
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
