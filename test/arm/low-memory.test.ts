import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIomem } from '../../src/arm/iomem.ts';
import { lowMemory } from '../../src/arm/low-memory.ts';

/** /proc/iomem of a machine whose memory below 1 MiB is these lines. */
function lowOf(...lines: readonly string[]): number | undefined {
  return lowMemory(parseIomem([...lines, '00100000-7ffdcfff : System RAM'].join('\n')));
}

test('the others begin at 64 KiB where that is memory', () => {
  assert.equal(lowOf('00000000-00000fff : Reserved', '00001000-0009fbff : System RAM'), 0x10000);
  assert.equal(lowOf('00001000-0000ffff : System RAM', '00010000-00013fff : System RAM'), 0x10000);
});

test('or else in the first pages that are, but not in page 0', () => {
  assert.equal(lowOf('00001000-00012fff : System RAM'), 0x1000);
  assert.equal(lowOf('00000000-00012fff : System RAM'), 0x1000);
  assert.equal(lowOf('00020123-0009fbff : System RAM'), 0x21000);
  assert.equal(lowOf('00001000-00003fff : System RAM', '00059000-0009efff : System RAM'), 0x59000);
});

test('or not at all: not in what is too small, not where a processor cannot begin, not in parts of memory', () => {
  assert.equal(lowOf('00001000-00003fff : System RAM', '0009d000-0009ffff : System RAM'), undefined);
  assert.equal(lowOf('000a0000-000fffff : System RAM'), undefined);
  assert.equal(lowOf('00001000-0009ffff : Reserved', '  00001000-0009ffff : System RAM'), undefined);
});
