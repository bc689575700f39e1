import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDispensable } from '../../../src/capture/memory/dispensable.ts';
import { VM } from '../../../src/linux/mm.ts';

const places = {
  ...{ start_code: 0x1000, end_code: 0x1800, start_data: 0x2f00, end_data: 0x3100 },
  ...{ start_stack: 0x9500, start_brk: 0x5000, brk: 0x6000 },
};
const OWN = VM.read | VM.write;
const SHARED = OWN | VM.mayShare;

function area(start: number, flags: number, vm_file = 0n) {
  return { start, end: start + 0x1000, flags, view: { vm_file } };
}

test('a process can be without memory that it shares, and without what it has made for itself', () => {
  assert.equal(isDispensable(places, area(0x7000, SHARED, 1n), undefined), true);
  assert.equal(isDispensable(places, area(0x7000, OWN), area(0x4000, OWN)), true);
  assert.equal(isDispensable(places, area(0x7000, OWN | VM.hugetlb, 1n), undefined), true);
});

test('no program can be without its code, heap or stack', () => {
  assert.equal(isDispensable(places, area(0x7000, VM.read | VM.exec), undefined), false);
  assert.equal(isDispensable(places, area(0x7000, SHARED | VM.exec, 1n), undefined), false);
  assert.equal(isDispensable(places, area(0x5000, OWN), undefined), false);
  for (const start of [0x1000, 0x2000, 0x3000])
    assert.equal(isDispensable(places, area(start, OWN | VM.hugetlb, 1n), undefined), false);
  assert.equal(isDispensable(places, area(0x9000, OWN), undefined), false);
  assert.equal(isDispensable(places, area(0x7000, OWN | VM.growsDown), undefined), false);
});

test('no program can be without the data of it and of its libraries, nor what is right behind that', () => {
  const data = area(0x7000, OWN, 1n);
  assert.equal(isDispensable(places, data, undefined), false);
  assert.equal(isDispensable(places, area(0x8000, OWN), data), false);
  assert.equal(isDispensable(places, area(0xa000, OWN), data), true);
  assert.equal(isDispensable(places, area(0x8000, SHARED), data), true);
});
