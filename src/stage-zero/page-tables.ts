import { PAGE_SIZE } from '../system/page.ts';
import type { Range } from '../system/range.ts';

/** Bits of an entry (SDM 3, 4.5): written through, not cached. */
const WRITE_THROUGH = 8;
const UNCACHED = 16;
/**
 * Of an entry that leads to another table: present, writable, and already marked as used, so that the
 * processor does not write into what has a checksum.
 */
const TABLE = 1 | 2 | 32;
/** Of an entry for a page of 2 MiB: the same, marked as written to as well. */
const LARGE = TABLE | 64 | 128;

const LARGE_PAGE = 2 ** 21;
const DIRECTORY_SPAN = 2 ** 30;
const TABLE_SPAN = 2 ** 39;
const LEVEL4_SPAN = 2 ** 48;
const ENTRIES = 512;

const FOUR_GIB = 2 ** 32;
/** Where every processor has the page of its local APIC, unless somebody moved it (SDM 3, 10.4.1). */
const APIC_BASE = 0xfee0_0000;

/** Kernel text that is mapped where the dead kernel had it: a physical and a virtual address. */
export interface Alias {
  readonly physical: number;
  readonly virtual: bigint;
  /** At most LARGE_PAGE. */
  readonly bytes: number;
}

/** Page tables that lie at a physical address, and the two tops of them: what CR3 has to be. */
export interface PageTables {
  readonly bytes: Buffer;
  /** CR3 with four levels. */
  readonly level4: number;
  /** CR3 with five levels. */
  readonly level5: number;
}

/** Bytes that tables for these ranges can need at most, wherever the ranges lie. */
export function pageTablesBytes(sizes: readonly number[]): number {
  const directories = sizes.map((size) => Math.ceil(size / DIRECTORY_SPAN) + 1);
  const tables = sizes.map((size) => Math.ceil(size / TABLE_SPAN) + 1);
  const all = [...directories, ...tables].reduce((sum, count) => sum + count, 0);
  // The two tops, a table and four directories for the first 4 GiB, a table and two directories for an alias.
  return (2 + 1 + FOUR_GIB / DIRECTORY_SPAN + 3 + all) * PAGE_SIZE;
}

/**
 * Tables that map the first 4 GiB, with the page of the local APIC uncached, and the ranges one to one; and
 * the large pages of the alias, two if it is on both sides of a boundary.
 * @param address physical, of the tables; a multiple of the page size
 */
export function pageTables(address: number, ranges: readonly Range[], alias?: Alias): PageTables {
  const bytes = Buffer.alloc(pageTablesBytes(ranges.map(({ start, end }) => end - start)));
  let used = 0;
  const newTable = (): number => {
    used += PAGE_SIZE;
    return used - PAGE_SIZE;
  };
  const level5 = newTable();
  const level4 = newTable();
  const put = (table: number, index: number, target: number, flags: number): void => {
    bytes.writeBigUInt64LE(BigInt(target) | BigInt(flags), table + index * 8);
  };
  put(level5, 0, address + level4, TABLE);
  const known = new Map<string, number>();
  /** The table that an entry of another leads to. */
  const below = (table: number, index: number): number => {
    const key = `${table} ${index}`;
    const inner = known.get(key) ?? newTable();
    known.set(key, inner);
    put(table, index, address + inner, TABLE);
    return inner;
  };
  for (const { start, end } of [{ start: 0, end: FOUR_GIB }, ...ranges]) {
    if (end > LEVEL4_SPAN) throw new RangeError(`physical address 0x${end.toString(16)} needs five levels`);
    for (let at = Math.floor(start / LARGE_PAGE) * LARGE_PAGE; at < end; at += LARGE_PAGE) {
      const table = below(level4, Math.floor(at / TABLE_SPAN));
      const directory = below(table, Math.floor(at / DIRECTORY_SPAN) % ENTRIES);
      const flags = LARGE | (at === APIC_BASE ? WRITE_THROUGH | UNCACHED : 0);
      put(directory, Math.floor(at / LARGE_PAGE) % ENTRIES, at, flags);
    }
  }
  if (alias !== undefined) {
    // The last of five levels' halves is the kernel's; with both halves the same table, either top will do.
    put(level5, ENTRIES - 1, address + level4, TABLE);
    for (const offset of new Set([0, alias.bytes - 1])) {
      const at = alias.virtual + BigInt(offset);
      const index = (span: number): number => Number((at / BigInt(span)) % BigInt(ENTRIES));
      const directory = below(below(level4, index(TABLE_SPAN)), index(DIRECTORY_SPAN));
      const page = Math.floor((alias.physical + offset) / LARGE_PAGE) * LARGE_PAGE;
      put(directory, index(LARGE_PAGE), page, LARGE);
    }
  }
  return { bytes, level4: address + level4, level5: address + level5 };
}

/**
 * Tables for the change from real to long mode: the first 2 MiB, one to one, in three pages from `address`
 * on.
 */
export function lowTables(address: number): Buffer {
  const bytes = Buffer.alloc(3 * PAGE_SIZE);
  for (const [level, target] of [address + PAGE_SIZE, address + 2 * PAGE_SIZE].entries()) {
    bytes.writeBigUInt64LE(BigInt(target | TABLE), level * PAGE_SIZE);
  }
  bytes.writeBigUInt64LE(BigInt(LARGE), 2 * PAGE_SIZE);
  return bytes;
}
