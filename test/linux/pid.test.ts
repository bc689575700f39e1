import assert from 'node:assert/strict';
import { test } from 'node:test';
import { longestFreeRange } from '../../src/linux/pid.ts';

test('the longest range of numbers that nobody has', () => {
  assert.deepEqual(longestFreeRange([]), { first: 300, last: 4194303 });
  // Kernel threads and the first daemons of a system that has just started.
  assert.deepEqual(longestFreeRange([1, 2, 61, 310, 700]), { first: 701, last: 4194303 });
  // Months later: the numbers have gone round.
  assert.deepEqual(longestFreeRange([4_000_000, 500, 4_194_303]), { first: 501, last: 3_999_999 });
  assert.deepEqual(longestFreeRange([1000, 4_100_000]), { first: 1001, last: 4_099_999 });
});
