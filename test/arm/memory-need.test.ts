import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import {
  neededBytes,
  possibleCpus,
  protectedBytes,
  suggestedReservation,
} from '../../src/arm/memory-need.ts';
import { protectedNeed, withDescendants } from '../../src/arm/protected-need.ts';
import { memoryProblem } from '../../src/arm/status.ts';

const MIB = 2 ** 20;
const parts = {
  initramfsBytes: 70 * MIB,
  baseBytes: 12 * MIB,
  runtimeBytes: 55 * MIB,
  firstRangeBytes: 1024 * MIB,
  cpus: 2,
  stageZeroBytes: 0,
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

test('the need has the room that stage zero takes', () => {
  assert.equal(neededBytes({ ...parts, stageZeroBytes: 6 * MIB }) - neededBytes(parts), 6 * MIB);
});

test('of what is unpacked, only what is compressed becomes more', () => {
  const unpacking = { ...parts, initramfsBytes: 200 * MIB, runtimeBytes: 0, firstRangeBytes: 0 };
  const more = { ...unpacking, initramfsBytes: 210 * MIB };
  assert.equal(neededBytes(more) - neededBytes(unpacking), 20 * MIB);
  assert.equal(neededBytes({ ...more, baseBytes: 22 * MIB }) - neededBytes(more), 20 * MIB);
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

test('protected processes need memory: 144 small ones what was measured, and status says when it is not there', () => {
  const small = { areas: 22, threads: 1, descriptors: 3 };
  const measured = protectedBytes(Array.from({ length: 144 }, () => small));
  // 281 MiB were used where a few processes take 197.
  assert.ok(measured >= 84 * MIB && measured <= 100 * MIB, `${measured / MIB}`);
  assert.equal(memoryProblem(255 * MIB, 320 * MIB), undefined);
  const problem = memoryProblem(255 * MIB + measured, 320 * MIB) ?? '';
  assert.match(problem, /may need 34\d MiB .*320 are reserved: boot with crashkernel=352M/);
});

test('descendants come along and are counted, each once', () => {
  const all = [
    { pid: 1, parent: 0 },
    { pid: 2, parent: 1 },
    { pid: 3, parent: 2 },
    { pid: 4, parent: 3 },
    { pid: 5, parent: 1 },
  ];
  assert.deepEqual([...withDescendants([2, 3], all)].sort(), [2, 3, 4]);
});

test('what a process has is counted while it runs; one that is gone needs nothing much', async () => {
  const child = spawn('sleep', ['60']);
  try {
    const one = protectedNeed([child.pid ?? 0]);
    assert.ok(one > 0.2 * MIB && one < 3 * MIB, `${one / MIB}`);
    assert.ok(protectedNeed([process.pid]) > one + protectedNeed([4_194_303]));
  } finally {
    child.kill();
  }
});
