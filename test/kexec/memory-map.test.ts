import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { crashLoadRange, crashMemoryMap, encodeE820, memoryMapOf } from '../../src/kexec/memory-map.ts';
import { GIB, resources, small } from './made-image.ts';

suite("a crash kernel's memory map", () => {
  test('is the first mebibyte, its reservation, and what the firmware has', () => {
    assert.deepEqual(crashMemoryMap(small, []), [
      { start: 0, end: 0x1000, type: 'reserved' },
      { start: 0x1000, end: 0x9fc00, type: 'ram' },
      { start: 0x9fc00, end: 0xa0000, type: 'reserved' },
      { start: 0xf0000, end: 0x100000, type: 'reserved' },
      { start: 0x6a000000, end: 0x7e000000, type: 'ram' },
      { start: 0x7ffdd000, end: 0x80000000, type: 'acpi' },
      { start: 0xb0000000, end: 0xc0000000, type: 'reserved' },
    ]);
  });

  test('has what is kept from it as reserved, neighbours joined', () => {
    const kept = [
      { start: 0x7dfff000, end: 0x7e000000 },
      { start: 0x7dff0000, end: 0x7dfff000 },
      { start: 0x70000000, end: 0x70001000 },
    ];
    const map = crashMemoryMap(small, kept).filter(({ start }) => start >= 0x6a000000 && start < 0x7e000000);
    assert.deepEqual(map, [
      { start: 0x6a000000, end: 0x70000000, type: 'ram' },
      { start: 0x70000000, end: 0x70001000, type: 'reserved' },
      { start: 0x70001000, end: 0x7dff0000, type: 'ram' },
      { start: 0x7dff0000, end: 0x7e000000, type: 'reserved' },
    ]);
  });

  test('has both reservations; segments go into the upper one', () => {
    const two = resources(
      [0x100000, 3 * GIB - 1, 'System RAM'],
      [0x10000000, 0x1fffffff, 'Crash kernel', 1],
      [4 * GIB, 17 * GIB - 1, 'System RAM'],
      [16 * GIB, 16 * GIB + 0xfffffff, 'Crash kernel', 1],
    );
    assert.deepEqual(crashMemoryMap(two, []), [
      { start: 0x10000000, end: 0x20000000, type: 'ram' },
      { start: 16 * GIB, end: 16 * GIB + 0x10000000, type: 'ram' },
    ]);
    assert.deepEqual(crashLoadRange(two), { start: 16 * GIB, end: 16 * GIB + 0x10000000 });
  });

  test('names every kind of firmware memory', () => {
    const kinds = resources(
      [0x1000, 0x1fff, 'ACPI Non-volatile Storage'],
      [0x2000, 0x2fff, 'Unusable memory'],
      [0x3000, 0x3fff, 'Persistent Memory'],
      [0x4000, 0x4fff, 'Persistent Memory (legacy)'],
      [0x5000, 0x5fff, 'Soft Reserved'],
      [0x10000000, 0x1fffffff, 'Crash kernel', 1],
    );
    assert.deepEqual(
      crashMemoryMap(kinds, []).map(({ type }) => type),
      ['nvs', 'unusable', 'pmem', 'legacy-pmem', 'ram'],
    );
  });

  test('needs a reservation', () => {
    assert.throws(() => crashMemoryMap(resources([0x1000, 0x9fbff, 'System RAM']), []), {
      name: 'KexecError',
      message: /no memory that is reserved for a crash kernel; boot with crashkernel=/,
    });
  });
});

suite('a memory map', () => {
  test('leaves out RAM of less than a page, and nothing else', () => {
    const map = memoryMapOf([
      { start: 0x1000, end: 0x1800, type: 'ram' },
      { start: 0x2000, end: 0x2800, type: 'reserved' },
    ]);
    assert.deepEqual(map, [{ start: 0x2000, end: 0x2800, type: 'reserved' }]);
  });

  test('gives what overlaps to the later entry', () => {
    const map = memoryMapOf([
      { start: 0, end: 0x10000, type: 'ram' },
      { start: 0x4000, end: 0x8000, type: 'reserved' },
      { start: 0x6000, end: 0x9000, type: 'acpi' },
    ]);
    assert.deepEqual(map, [
      { start: 0, end: 0x4000, type: 'ram' },
      { start: 0x4000, end: 0x6000, type: 'reserved' },
      { start: 0x6000, end: 0x9000, type: 'acpi' },
      { start: 0x9000, end: 0x10000, type: 'ram' },
    ]);
  });

  test('becomes a table of e820', () => {
    const table = encodeE820([
      { start: 0x1000, end: 0x9fc00, type: 'ram' },
      { start: 2 ** 40, end: 2 ** 40 + 0x1000, type: 'legacy-pmem' },
    ]);
    assert.equal(table.length, 40);
    assert.equal(table.readBigUInt64LE(0), 0x1000n);
    assert.equal(table.readBigUInt64LE(8), 0x9ec00n);
    assert.equal(table.readUInt32LE(16), 1);
    assert.equal(table.readBigUInt64LE(20), 1n << 40n);
    assert.equal(table.readUInt32LE(36), 12);
  });

  test('that is out of order is refused', () => {
    const [low, high] = [
      { start: 0x1000, end: 0x3000, type: 'ram' },
      { start: 0x2000, end: 0x4000, type: 'ram' },
    ] as const;
    assert.throws(() => encodeE820([low, high]), /not in order at 0x2000-0x3fff/);
    assert.throws(() => encodeE820([{ ...low, end: 0x1000 }]), /not in order/);
  });
});
