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
  assert.equal(isDispensable(places, area(0x7000, SHARED, 1n), []), true);
  assert.equal(isDispensable(places, area(0x7000, OWN), [area(0x4000, OWN)]), true);
  assert.equal(isDispensable(places, area(0x7000, OWN | VM.hugetlb, 1n), []), true);
});

test('no program can be without its code, heap or stack', () => {
  assert.equal(isDispensable(places, area(0x7000, VM.read | VM.exec), []), false);
  assert.equal(isDispensable(places, area(0x7000, SHARED | VM.exec, 1n), []), false);
  assert.equal(isDispensable(places, area(0x5000, OWN), []), false);
  for (const start of [0x1000, 0x2000, 0x3000])
    assert.equal(isDispensable(places, area(start, OWN | VM.hugetlb, 1n), []), false);
  assert.equal(isDispensable(places, area(0x9000, OWN), []), false);
  assert.equal(isDispensable(places, area(0x7000, OWN | VM.growsDown), []), false);
});

test('no program can be without the data of it and of its libraries, nor what is right behind that', () => {
  const data = area(0x7000, OWN, 1n);
  assert.equal(isDispensable(places, data, []), false);
  assert.equal(isDispensable(places, area(0x8000, OWN), [data]), false);
  assert.equal(isDispensable(places, area(0xa000, OWN), [data]), true);
  assert.equal(isDispensable(places, area(0x8000, SHARED), [data]), true);
});

test('no program can be without what goes on behind its data in further areas', () => {
  const data = area(0x7000, OWN, 1n);
  const [zeros, rest] = [area(0x8000, OWN), area(0x9000, VM.read)];
  assert.equal(isDispensable({ ...places, start_stack: 0 }, area(0xa000, OWN), [data, zeros, rest]), false);
  // Memory that it shares ends it, and so does a gap.
  assert.equal(isDispensable(places, area(0xa000, OWN), [data, zeros, area(0x9000, SHARED)]), true);
  assert.equal(isDispensable(places, area(0xa000, OWN), [data, rest]), true);
});
