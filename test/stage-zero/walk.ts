import { PAGE_SIZE } from '../../src/system/page.ts';

/** A page of 2 MiB as page tables have it. */
export interface LargePage {
  readonly virtual: bigint;
  readonly physical: number;
  /** The bits of its entry besides the address. */
  readonly flags: number;
}

const ADDRESS = 0x000f_ffff_ffff_f000n;
const PRESENT = 1n;
const LARGE = 128n;

/** Everything that tables map, in the order of virtual addresses; `used` gets their pages. */
export function walkTables(
  bytes: Buffer,
  tables: { readonly address: number; readonly top: number; readonly levels: 4 | 5 },
  used = new Set<number>(),
): { readonly pages: LargePage[]; readonly tableFlags: Set<number> } {
  const pages: LargePage[] = [];
  const tableFlags = new Set<number>();
  const walk = (table: number, level: number, virtual: bigint): void => {
    const at = table - tables.address;
    if (at < 0 || at % PAGE_SIZE !== 0 || at + PAGE_SIZE > bytes.length)
      throw new Error(`a table lies at 0x${table.toString(16)}`);
    used.add(table);
    for (let index = 0; index < 512; index++) {
      const entry = bytes.readBigUInt64LE(at + index * 8);
      if ((entry & PRESENT) === 0n) {
        if (entry !== 0n) throw new Error('an entry that is not present is not 0');
        continue;
      }
      const here = virtual + (BigInt(index) << BigInt(12 + 9 * (level - 1)));
      const flags = Number(entry & ~ADDRESS);
      if (level === 2) {
        if ((entry & LARGE) === 0n) throw new Error('a directory has a page of 4 KiB');
        pages.push({ virtual: canonical(here, tables.levels), physical: Number(entry & ADDRESS), flags });
      } else {
        tableFlags.add(flags);
        walk(Number(entry & ADDRESS), level - 1, here);
      }
    }
  };
  walk(tables.top, tables.levels, 0n);
  return { pages, tableFlags };
}

function canonical(address: bigint, levels: number): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(levels === 5 ? 57 : 48, address));
}
