import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limitProperties, limitsOfGroup } from '../../../src/crash-world/systemd/scope-limits.ts';

const MIB = 2 ** 20;

test('limits are told to systemd in its own words', () => {
  const limits = {
    memoryMaxBytes: 200 * MIB,
    swapMaxBytes: 0,
    tasksMax: 50,
    cpuQuotaMicroseconds: 40_500,
    cpuPeriodMicroseconds: 100_000,
    cpuWeight: 20,
  };
  assert.deepEqual(limitProperties(limits), [
    'MemoryMax=209715200',
    'MemorySwapMax=0',
    'TasksMax=50',
    'CPUWeight=20',
    'CPUQuota=40.5%',
    'CPUQuotaPeriodSec=100000us',
  ]);
  assert.deepEqual(limitProperties({}), []);
});

test('a scope gets the limits that all of its processes had; others are named as lost', () => {
  const limits = { memoryMaxBytes: 200 * MIB };
  const same = [1, 2].map((pid) => ({ pid, limits: { ...limits } }));
  assert.deepEqual(limitsOfGroup(same), { limits, notes: [] });
  const mixed = limitsOfGroup([...same, { pid: 3, limits: {} }]);
  assert.deepEqual(mixed.limits, {});
  assert.equal(mixed.notes.length, 2);
  assert.match(mixed.notes[0] ?? '', /^process 1 was under MemoryMax=209715200, which does not hold/);
  assert.deepEqual(limitsOfGroup([]), { limits: {}, notes: [] });
});
