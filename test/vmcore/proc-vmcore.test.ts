import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { AddressError } from '../../src/vmcore/errors.ts';
import { openFile } from '../../src/vmcore/mapping.ts';
import { type FileRange, ProcVmcoreMemory } from '../../src/vmcore/proc-vmcore.ts';
import { scratch } from './fixtures.ts';

const PIECE = 4 * PAGE_SIZE;
const PASSING = 3;

/**
 * The file holds 64 pages of memory from page 1 on, and 40 from page 200 on, in reverse order, after a head
 * of one page.
 */
const ranges: readonly FileRange[] = [
  { physical: 200 * PAGE_SIZE, length: 40 * PAGE_SIZE, offset: PAGE_SIZE },
  { physical: PAGE_SIZE, length: 64 * PAGE_SIZE, offset: 41 * PAGE_SIZE },
];
const path = scratch('proc-vmcore');
const content = randomFillSync(Buffer.alloc(105 * PAGE_SIZE));
writeFileSync(path, content);

function expected(physical: number, length: number): Buffer {
  const range = ranges.find(({ physical: start }) => physical >= start && physical < start + 64 * PAGE_SIZE);
  const at = (range?.offset ?? 0) + physical - (range?.physical ?? 0);
  return content.subarray(at, at + length);
}

function mapped(): number {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.endsWith(path)).length;
}

describe('the memory of /proc/vmcore', () => {
  const file = openFile(path);
  const open = (): ProcVmcoreMemory => new ProcVmcoreMemory(file, ranges, { piece: PIECE, passing: PASSING });

  it('is the same in one piece and over the ends of pieces', () => {
    const memory = open();
    for (const [page, bytes] of [
      [1, 10],
      [3, PIECE],
      [1, 64 * PAGE_SIZE],
      [201, 5 * PIECE + 7],
      [239, PAGE_SIZE],
    ] as const) {
      const wanted = expected(page * PAGE_SIZE, bytes);
      assert.ok(wanted.equals(memory.view(page * PAGE_SIZE, bytes)));
      assert.ok(memory.withView(page * PAGE_SIZE, bytes, (seen) => wanted.equals(seen)));
    }
    assert.notEqual(memory.contiguous(PIECE, PIECE), undefined);
    assert.equal(memory.contiguous(PIECE + 1, PIECE), undefined);
    memory.close();
    assert.equal(mapped(), 0);
  });

  it('ends where the ranges do', () => {
    const memory = open();
    assert.equal(memory.has(PAGE_SIZE, 64 * PAGE_SIZE), true);
    assert.equal(memory.has(PAGE_SIZE, 64 * PAGE_SIZE + 1), false);
    assert.equal(memory.contiguous(0, 1), undefined);
    for (const [physical, length] of [
      [0, 1],
      [64 * PAGE_SIZE, PAGE_SIZE + 1],
      [150 * PAGE_SIZE, 1],
      [238 * PAGE_SIZE, 3 * PAGE_SIZE],
    ] as const) {
      assert.throws(() => memory.view(physical, length), AddressError);
      assert.throws(() => memory.withView(physical, length, () => assert.fail()), AddressError);
    }
    const fd = openSync(scratch('beyond'), 'w');
    assert.throws(
      () => memory.writeRuns(fd, [{ physical: 64 * PAGE_SIZE, length: 2 * PAGE_SIZE }]),
      AddressError,
    );
    closeSync(fd);
    memory.close();
  });

  it('is written out through a few mappings, however much it is and however it is scattered', () => {
    const memory = open();
    const looked = memory.view(20 * PAGE_SIZE, PAGE_SIZE);
    const runs = [
      ...Array.from({ length: 2500 }, (_, i) => ({
        physical: (i % 2 === 0 ? 1 + ((i * 7) % 60) : 200 + ((i * 11) % 39)) * PAGE_SIZE + (i % 5),
        length: PAGE_SIZE,
      })),
      { physical: PAGE_SIZE, length: 64 * PAGE_SIZE },
    ];
    const fd = openSync(scratch('written'), 'w');
    const bytes = memory.writeRuns(fd, runs);
    closeSync(fd);
    const wanted = Buffer.concat(runs.map(({ physical, length }) => expected(physical, length)));
    assert.equal(bytes, wanted.length);
    assert.ok(wanted.equals(readFileSync(scratch('written'))));
    assert.ok(mapped() <= PASSING + 1, `${mapped()} mappings`);
    // What was looked at is still there.
    assert.ok(expected(20 * PAGE_SIZE, PAGE_SIZE).equals(looked));
    memory.close();
  });

  it('keeps what is looked at after it was written out', () => {
    const memory = open();
    const fd = openSync('/dev/null', 'w');
    memory.writeRuns(fd, [{ physical: 8 * PAGE_SIZE, length: PAGE_SIZE }]);
    const looked = memory.view(8 * PAGE_SIZE, PAGE_SIZE);
    memory.writeRuns(fd, [{ physical: 12 * PAGE_SIZE, length: 50 * PAGE_SIZE }]);
    closeSync(fd);
    assert.ok(expected(8 * PAGE_SIZE, PAGE_SIZE).equals(looked));
    memory.close();
  });
});
