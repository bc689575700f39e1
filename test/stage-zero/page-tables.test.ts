import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { lowTables, pageTables, pageTablesBytes } from '../../src/stage-zero/page-tables.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { Range } from '../../src/system/range.ts';
import { type LargePage, walkTables } from './walk.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const LARGE_PAGE = 2 * MIB;
const APIC = 0xfee0_0000;
/** Where the tables lie. */
const ADDRESS = 0x6000_0000;

/** Present, writable, accessed; and for pages dirty and large. */
const TABLE_FLAGS = 0x23;
const PAGE_FLAGS = 0xe3;
const UNCACHED_FLAGS = PAGE_FLAGS | 0x18;

/** One to one, each page of a range once. */
function identity(ranges: readonly Range[]): LargePage[] {
  const pages = new Set(
    ranges.flatMap(({ start, end }) => {
      const first = Math.floor(start / LARGE_PAGE);
      return Array.from({ length: Math.ceil(end / LARGE_PAGE) - first }, (_, i) => (first + i) * LARGE_PAGE);
    }),
  );
  return [...pages]
    .toSorted((a, b) => a - b)
    .map((at) => ({ virtual: BigInt(at), physical: at, flags: at === APIC ? UNCACHED_FLAGS : PAGE_FLAGS }));
}

const ranges = {
  'below 4 GiB': [{ start: GIB, end: GIB + 256 * MIB }],
  'above 4 GiB': [{ start: 20 * GIB, end: 20 * GIB + 512 * MIB }],
  'across a boundary of 1 GiB': [{ start: 9 * GIB - 16 * MIB, end: 9 * GIB + 16 * MIB }],
  'across a boundary of 512 GiB': [{ start: 512 * GIB - 4 * MIB, end: 512 * GIB + 4 * MIB }],
  'in two parts': [
    { start: 3 * GIB, end: 3 * GIB + 256 * MIB },
    { start: 5 * TIB, end: 5 * TIB + GIB },
  ],
  'that begins and ends inside of pages': [{ start: 7 * GIB + MIB + 1, end: 7 * GIB + 3 * MIB + 1 }],
} satisfies Record<string, Range[]>;

for (const [where, reserved] of Object.entries(ranges)) {
  suite(`page tables for memory ${where}`, () => {
    const tables = pageTables(ADDRESS, reserved);
    const used = new Set<number>();
    const walked = [
      walkTables(tables.bytes, { address: ADDRESS, top: tables.level4, levels: 4 }, used),
      walkTables(tables.bytes, { address: ADDRESS, top: tables.level5, levels: 5 }, used),
    ];

    test('map it and the first 4 GiB one to one, the local APIC uncached, and nothing else', () => {
      const expected = identity([{ start: 0, end: 4 * GIB }, ...reserved]);
      for (const { pages } of walked) assert.deepEqual(pages, expected);
    });

    test('are marked as used, so that the processor does not write to them', () => {
      for (const { tableFlags } of walked) assert.deepEqual([...tableFlags], [TABLE_FLAGS]);
    });

    test('have no more bytes than was told', () => {
      const told = pageTablesBytes(reserved.map(({ start, end }) => end - start));
      assert.equal(tables.bytes.length, told);
      assert.ok(used.size * PAGE_SIZE <= told);
      assert.ok(used.has(tables.level4) && used.has(tables.level5));
    });
  });
}

suite('kernel text that has its own address as well', () => {
  const virtual = 0xffff_ffff_8100_0000n;
  const reserved = [{ start: GIB, end: GIB + 256 * MIB }];

  /** What is mapped besides the identity. */
  function aliases(physical: number, at: bigint): LargePage[][] {
    const text = [...reserved, { start: physical, end: physical + 64 }];
    const { bytes, level4, level5 } = pageTables(ADDRESS, text, { physical, virtual: at, bytes: 64 });
    const expected = identity([{ start: 0, end: 4 * GIB }, ...text]);
    return [{ top: level4, levels: 4 } as const, { top: level5, levels: 5 } as const].map((top) => {
      const { pages } = walkTables(bytes, { address: ADDRESS, ...top });
      const identical = pages.filter(({ virtual: page }) => page < 1n << 47n);
      assert.deepEqual(identical, expected);
      return pages.filter(({ virtual: page }) => page >= 0xffff_8000_0000_0000n);
    });
  }

  test('is mapped there by four and by five levels', () => {
    const page = { virtual, physical: 0x2a00_0000, flags: PAGE_FLAGS };
    assert.deepEqual(aliases(0x2a00_1234, virtual + 0x1234n), [[page], [page]]);
  });

  test('may lie above everything else', () => {
    const page = { virtual, physical: 40 * GIB, flags: PAGE_FLAGS };
    assert.deepEqual(aliases(40 * GIB + 0x1234, virtual + 0x1234n), [[page], [page]]);
  });

  test('is whole if it lies across a boundary of pages, and of directories', () => {
    const large = BigInt(LARGE_PAGE);
    for (const start of [virtual, 0xffff_ffff_c000_0000n]) {
      const both = [
        { virtual: start - large, physical: 0x29e0_0000, flags: PAGE_FLAGS },
        { virtual: start, physical: 0x2a00_0000, flags: PAGE_FLAGS },
      ];
      assert.deepEqual(aliases(0x2a00_0000 - 8, start - 8n), [both, both]);
    }
  });
});

test('memory that four levels do not reach is an error', () => {
  assert.throws(() => pageTables(ADDRESS, [{ start: 2 ** 48, end: 2 ** 48 + GIB }]), RangeError);
});

test('tables for the change to long mode map the first 2 MiB', () => {
  const bytes = lowTables(0x11000);
  const { pages, tableFlags } = walkTables(bytes, { address: 0x11000, top: 0x11000, levels: 4 });
  assert.deepEqual(pages, [{ virtual: 0n, physical: 0, flags: PAGE_FLAGS }]);
  assert.deepEqual([...tableFlags], [TABLE_FLAGS]);
});
