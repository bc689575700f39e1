import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArmError } from '../../src/arm/errors.ts';
import { blockBytes, memmapParameter, parseIomem, reclaimableRanges } from '../../src/arm/iomem.ts';

import { crashReservations } from '../../src/kexec/index.ts';

const MIB = 2 ** 20;

/** A guest of 2 GiB with crashkernel=320M. */
const small = `00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-7ffdcfff : System RAM
  0aa00000-0b9fffff : Kernel code
  0d0d8000-0d5fffff : Kernel bss
  6a000000-7dffffff : Crash kernel
7ffdd000-7fffffff : Reserved
`;

/** 16 GiB in two ranges, with a high and a low reservation. */
const large = `00001000-0009ffff : System RAM
00100000-bfffffff : System RAM
  10000000-1fffffff : Crash kernel
100000000-43fffffff : System RAM
  400000000-41fffffff : Crash kernel
`;

test('reserved ranges are found, low and high', () => {
  assert.deepEqual(crashReservations(parseIomem(small)), [{ start: 0x6a000000, end: 0x7e000000 }]);
  assert.equal(crashReservations(parseIomem(large)).length, 2);
});

test('whole memory blocks outside the reserved memory are taken back', () => {
  const ranges = reclaimableRanges(parseIomem(small), 320 * MIB);
  assert.deepEqual(ranges.map(memmapParameter), ['memmap=1538M!126M']);
});

test('no range touches reserved memory, every edge is on a block but for the label, nothing overlaps', () => {
  const entries = parseIomem(large);
  const ranges = reclaimableRanges(entries, 512 * MIB);
  for (const [index, range] of ranges.entries()) {
    assert.equal((range.start + 2 * MIB) % (128 * MIB), 0);
    assert.equal(range.end % (128 * MIB), 0);
    assert.ok(range.start < range.end);
    assert.ok(range.start > (ranges[index - 1]?.end ?? 0), 'touching ranges would be joined');
    for (const hole of crashReservations(entries)) {
      assert.ok(range.end <= hole.start || range.start >= hole.end);
    }
  }
  const total = ranges.reduce((sum, range) => sum + blockBytes(range), 0);
  // Of every part that begins on a block, that one has to hold the label.
  assert.equal(total, (3072 - 128 - 256 - 128 + 13312 - 512 - 2 * 128) * MIB);
});

test("each range's page descriptors fit into what is there before it", () => {
  let present = 320 * MIB;
  const ranges = reclaimableRanges(parseIomem(`00100000-3fffffffff : System RAM\n`), present);
  assert.equal(ranges.length, 4);
  for (const range of ranges) {
    assert.ok((range.end - range.start) * 0.016 < present / 7);
    present += range.end - range.start;
  }
});

test('hidden addresses are an error', () => {
  assert.throws(() => parseIomem('00000000-00000000 : System RAM\n'), ArmError);
});
