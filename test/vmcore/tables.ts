import type { PageTable } from '../../src/arch/index.ts';
import { x86_64 } from '../../src/arch/x86-64/index.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { MappedMemory, SharedMapping } from '../../src/vmcore/physical.ts';

export const PRESENT = 0x67n;
export const HUGE = 0x80n;
export const PROTNONE = 0x100n;
export const NX = 1n << 63n;

/** Page tables built by hand in a small physical memory. */
export class TableBuilder {
  readonly bytes = Buffer.alloc(256 * PAGE_SIZE);
  readonly table: PageTable;
  #next = 1;

  constructor(levels: 4 | 5) {
    this.table = { format: x86_64.pageTable, root: this.allocate(), levels };
  }

  /** Physical address of a fresh zeroed page. */
  allocate(): number {
    return this.#next++ * PAGE_SIZE;
  }

  memory(): MappedMemory {
    const data = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length);
    const mapping = { fileOffset: 0, length: this.bytes.length, address: 0, data, unmap: () => undefined };
    return new MappedMemory([
      { physical: 0, length: this.bytes.length, mapping: new SharedMapping(() => mapping), offset: 0 },
    ]);
  }

  /** Puts an entry for `address` into the table of `level` (1 is the lowest), making the tables above it. */
  set(address: bigint, entry: bigint, level = 1): void {
    let table = this.table.root;
    for (let at = this.table.levels; ; at--) {
      const slot = table + Number((address >> BigInt(12 + 9 * (at - 1))) & 511n) * 8;
      if (at === level) {
        this.bytes.writeBigUInt64LE(BigInt.asUintN(64, entry), slot);
        return;
      }
      if (this.bytes.readBigUInt64LE(slot) === 0n) {
        this.bytes.writeBigUInt64LE(BigInt(this.allocate()) | PRESENT, slot);
      }
      table = Number(this.bytes.readBigUInt64LE(slot) & 0x000f_ffff_ffff_f000n);
    }
  }
}
