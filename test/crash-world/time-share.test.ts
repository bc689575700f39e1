import assert from 'node:assert/strict';
import { test } from 'node:test';
import { optionsInSandbox } from '../../src/crash-world/sandbox/restore-into-sandbox.ts';
import { SANDBOX_MINUTES } from '../../src/crash-world/sandbox/sandbox-units.ts';
import { restoreOptionsOf } from '../../src/crash-world/stages/restore-stage.ts';
import { timeForOne } from '../../src/crash-world/time-share.ts';
import { groupOf, processOf } from '../criu/processes.ts';

test('what is stuck leaves time for what comes after it, however many are stuck', () => {
  let passed = 12 * 60_000;
  const had = Array.from({ length: 8 }, () => {
    const { seconds } = timeForOne(30, 'time-limit-minutes', passed);
    passed += seconds * 1000;
    return seconds;
  });
  assert.deepEqual(had, [540, 270, 135, 67, 34, 17, 8, 4]);
  assert.ok(passed < 30 * 60_000);
});

test('at the end of the time there is a second, which is enough to say what was too late', () => {
  assert.equal(timeForOne(1, 'time-limit-minutes', 60_000).seconds, 1);
  assert.equal(timeForOne(1, 'time-limit-minutes', 90_000).seconds, 1);
});

test('a group outside of a sandbox has a part of time-limit-minutes', () => {
  const group = groupOf([processOf(7)]);
  const ready = { group, directory: '/', pagesBytes: 0, plans: [], found: new Map() };
  const { most } = restoreOptionsOf(ready, 1000);
  assert.ok(most !== undefined && most.seconds > 29_000 && most.seconds <= 30_000);
  assert.equal(most.why, 'half of what was left of time-limit-minutes');
});

test('a group in a sandbox has a part of the time of the program that restores there', () => {
  const plan = { group: { files: [], processes: [] }, sandbox: { privateDirectories: [] } };
  const { most } = optionsInSandbox(plan as never, 'some.service', 1, new Map());
  assert.ok(most !== undefined && most.seconds > 60 && most.seconds <= (SANDBOX_MINUTES * 60) / 2);
  assert.equal(most.why, 'half of what was left of the 15 minutes for sandboxes');
});
