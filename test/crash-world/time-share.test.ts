import assert from 'node:assert/strict';
import { test } from 'node:test';
import { secondsForRestores } from '../../src/config/restore-time.ts';
import { optionsInSandbox } from '../../src/crash-world/sandbox/restore-into-sandbox.ts';
import { restoreOptionsOf } from '../../src/crash-world/stages/restore-stage.ts';
import { timeForOne } from '../../src/crash-world/time-share.ts';
import { groupOf, processOf } from '../criu/processes.ts';

const time = { minutes: 30, limit: 'time-limit-minutes' };
const small = { pagesBytes: 0, ringSeconds: 0 };
const GIB = 2 ** 30;

test('what is stuck leaves time for what comes after it, however many are stuck; the last has the rest', () => {
  let passed = 12 * 60_000;
  const had = Array.from({ length: 8 }, (_, i) => {
    const { seconds } = timeForOne(time, small, Array(7 - i).fill(small), passed);
    passed += seconds * 1000;
    return seconds;
  });
  assert.deepEqual(had, [495, 247, 124, 62, 31, 15, 8, 8]);
  assert.equal(passed, (30 * 60 - 90) * 1000);
});

test('the last one, or the only one, has all that is left but a little', () => {
  assert.deepEqual(timeForOne(time, small, [], 600_000), {
    seconds: 1110,
    why: 'all of what was left of time-limit-minutes',
  });
});

test('a large one has as much more as it has to read, and the others what they have to', () => {
  const large = { pagesBytes: 60 * GIB, ringSeconds: 0 };
  assert.equal(timeForOne(time, large, [small, small], 600_000).seconds, 1075);
  assert.equal(timeForOne(time, small, [large], 600_000).seconds, 555);
});

test('what rings were promised is kept for them, of this group and of those that wait', () => {
  const five = { minutes: 5, limit: 'time-limit-minutes' };
  const withRings = { pagesBytes: 0, ringSeconds: 75 };
  const { seconds } = timeForOne(five, withRings, [withRings], 60_000);
  assert.equal(seconds, 37);
  // The first is stuck; capture had a minute, and the promised rings have their time.
  assert.ok(60 + seconds + 150 < 300);
  assert.equal(timeForOne(five, withRings, [], 60_000).seconds, 150);
  // Where there is not that much, they do not take all of it.
  assert.equal(timeForOne(five, withRings, [withRings], 185_000).seconds, 12);
});

test('at the end of the time there is a second, which is enough to say what was too late', () => {
  const one = { minutes: 1, limit: 'time-limit-minutes' };
  assert.equal(timeForOne(one, small, [], 60_000).seconds, 1);
  assert.equal(timeForOne(one, small, [], 90_000).seconds, 1);
});

test('a group outside of a sandbox has a part of time-limit-minutes', () => {
  const group = { ...groupOf([processOf(7)]), ringSeconds: 600 };
  const ready = { group, directory: '/', pagesBytes: 0, plans: [], found: new Map() };
  const { most } = restoreOptionsOf(ready, 1000, [ready]);
  assert.ok(most !== undefined && most.seconds > 27_000 && most.seconds <= 27_900);
  assert.equal(most.why, 'its part of what was left of time-limit-minutes');
});

test('a group in a sandbox has a part of the time of the program that restores there', () => {
  const rings = 41;
  const plan = { group: {}, sandbox: { privateDirectories: [] }, pagesBytes: 0, ringSeconds: rings };
  const most = (waiting: readonly (typeof small)[]) =>
    optionsInSandbox(plan as never, { unit: 'some.service', placeholder: 1, waiting }, new Map()).most;
  // Of the time since this process began, which other tests may have taken.
  const left = secondsForRestores(13, performance.now() / 1000);
  assert.equal(most([])?.why, 'all of what was left of the 13 minutes for sandboxes');
  const all = Math.max(left - rings, left / 4, 1);
  const [alone, first] = [most([])?.seconds ?? 0, most([small])?.seconds ?? 0];
  assert.ok(Math.abs(alone - all) <= 2, `${alone} of ${all}`);
  assert.ok(Math.abs(first - Math.max(1, all / 2)) <= 2, `${first} of ${all}`);
});
