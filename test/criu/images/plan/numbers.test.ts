import assert from 'node:assert/strict';
import { test } from 'node:test';
import { neededNumbers } from '../../../../src/criu/images/plan/numbers.ts';
import { processOf, threadOf } from '../../processes.ts';

const sorted = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b);

test('a group needs the numbers of its processes and threads', () => {
  const process = processOf(4_190_000, { threads: [threadOf(4_190_000), threadOf(4_190_007)] });
  assert.deepEqual(sorted(neededNumbers([process])), [4_190_000, 4_190_007]);
});

test('and those of dead leaders, whose places helpers take', () => {
  const process = processOf(900, { pgid: 890, sid: 880 });
  assert.deepEqual(sorted(neededNumbers([processOf(5000), process])), [880, 890, 900, 5000]);
});

test('and one that CRIU chooses, for who has left the leader of a session that is there', () => {
  const leader = processOf(400, { ppid: 5000 });
  const orphan = processOf(401, { ppid: 5000, pgid: 401, sid: 400 });
  assert.deepEqual(sorted(neededNumbers([processOf(5000), leader, orphan])), [400, 401, 402, 5000]);
  const early = processOf(120, { ppid: 5000 });
  const lost = processOf(130, { ppid: 5000, pgid: 130, sid: 120 });
  assert.deepEqual(sorted(neededNumbers([processOf(5000), early, lost])), [120, 130, 301, 5000]);
});
