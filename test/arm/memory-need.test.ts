import assert from 'node:assert/strict';
import { test } from 'node:test';
import { neededBytes, possibleCpus, suggestedReservation } from '../../src/arm/memory-need.ts';

const MIB = 2 ** 20;
const parts = {
  initramfsBytes: 70 * MIB,
  runtimeBytes: 55 * MIB,
  firstRangeBytes: 1024 * MIB,
  cpus: 2,
};

test('the need grows with the processors, and with the larger of unpacking and running', () => {
  const few = neededBytes(parts);
  assert.equal(neededBytes({ ...parts, cpus: 102 }) - few, 190 * MIB);
  assert.ok(neededBytes({ ...parts, firstRangeBytes: 2048 * MIB }) > few);
  assert.ok(
    neededBytes({ ...parts, initramfsBytes: 140 * MIB }) >
      neededBytes({ ...parts, initramfsBytes: 120 * MIB }),
  );
});

test('possible processors are counted up to the last, or to nr_cpus= of the crash kernel', () => {
  assert.equal(possibleCpus('0\n'), 1);
  assert.equal(possibleCpus('0-127\n'), 128);
  assert.equal(possibleCpus('0-3,8-11\n'), 12);
  assert.equal(possibleCpus('0-127\n', 'root=/dev/vda maxcpus=1 nr_cpus=8'), 8);
  assert.equal(possibleCpus('0-3\n', 'nr_cpus=8'), 4);
  assert.equal(possibleCpus('0-3\n', 'nr_cpus=x'), 4);
});

test('what is suggested is enough for what is needed', () => {
  assert.equal(suggestedReservation(8), 320 * MIB);
  for (const cpus of [1, 32, 33, 128, 512]) {
    assert.ok(suggestedReservation(cpus) >= neededBytes({ ...parts, cpus }), `${cpus}`);
  }
});
