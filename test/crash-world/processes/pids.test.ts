import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { keepClear, takenNumbers } from '../../../src/crash-world/processes/pids.ts';
import type { NumberRange } from '../../../src/linux/pid.ts';

test("the crash world's processes begin where the dead world had none", () => {
  const started: NumberRange[] = [];
  const start = (range: NumberRange) => started.push(range);
  const late = keepClear([1, 400, 200_001, 4_186_200], start, () => [4_186_113]);
  assert.deepEqual(late, { range: { first: 200_002, last: 4_186_199 }, isInTheWay: false });
  assert.deepEqual(started, [late.range]);
});

test('a program of the crash world that has a number of the dead world is in the way', () => {
  assert.ok(
    keepClear(
      [700, 4_186_300],
      () => undefined,
      () => [4_186_299, 4_186_300],
    ).isInTheWay,
  );
});

test('of wanted numbers those are named that somebody has', () => {
  const free = 4_194_303;
  assert.ok(!existsSync(`/proc/${free}`));
  const [taken, ...others] = takenNumbers([free, process.pid]);
  assert.match(taken ?? '', new RegExp(`^the number ${process.pid} is taken: \\S+$`));
  assert.deepEqual(others, []);
  const thread = Number(readdirSync('/proc/self/task').find((tid) => Number(tid) !== process.pid));
  assert.match(takenNumbers([thread])[0] ?? '', new RegExp(`, a thread of process ${process.pid}$`));
});
