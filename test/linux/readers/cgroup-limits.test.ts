import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scopeLimitsSchema } from '../../../src/crash-world/systemd/scope-limits.ts';
import { inBytes, weightOf } from '../../../src/linux/readers/cgroup-limits.ts';

test('the weight of a cgroup is one that it can be given again', () => {
  // sched_weight_from_cgroup() and scale_load() of kernel/sched: weights 1, 20, 100 and 10000; and cpu.idle
  // (WEIGHT_IDLEPRIO).
  const shares = [10 * 1024, 205 * 1024, 1024 * 1024, 102_400 * 1024, 3 * 1024];
  assert.deepEqual(shares.map(weightOf), [1, 20, 100, 10_000, 1]);
});

test('memory that is protected without a limit (memory.low of max) can be handed over', () => {
  const limits = { memoryLowBytes: inBytes(0x7_ffff_ffff_ffff), memoryMaxBytes: inBytes(51_200) };
  assert.equal(limits.memoryMaxBytes, 200 * 2 ** 20);
  assert.deepEqual(scopeLimitsSchema.parse(JSON.parse(JSON.stringify(limits))), limits);
  assert.equal(inBytes(undefined), undefined);
});
