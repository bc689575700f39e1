import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { symbolInspection } from '../../src/inspect/symbol.ts';
import { BtfLayouts } from '../../src/vmcore/btf-layouts.ts';
import type { MemberKind, MemberLayout } from '../../src/vmcore/layout.ts';
import { openFixture } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

const none = { signed: false, bits: undefined, element: undefined, only: undefined, structName: undefined };

function layout(offsetBytes: number, sizeBytes: number, kind: MemberKind = 'pointer'): MemberLayout {
  return { ...none, offsetBytes, sizeBytes, kind };
}

function arrayLayout(offsetBytes: number, count: number, element: MemberLayout): MemberLayout {
  return {
    ...layout(offsetBytes, count * element.sizeBytes, 'array'),
    element: { count, layout: element },
  };
}

/** Structures that the fixtures' BTF does not have. */
const common: Readonly<Record<string, { size: number; members: Readonly<Record<string, MemberLayout>> }>> = {
  mod_kallsyms: {
    size: 32,
    members: { symtab: layout(0, 8), num_symtab: layout(8, 4, 'integer'), strtab: layout(16, 8) },
  },
  module_layout: { size: 80, members: { base: layout(0, 8), size: layout(8, 4, 'integer') } },
  module_memory: { size: 64, members: { base: layout(0, 8), size: layout(8, 4, 'integer') } },
};
const moduleMembers = {
  list: layout(8, 16, 'struct'),
  name: arrayLayout(24, 56, layout(0, 1, 'integer')),
  kallsyms: layout(400, 8),
};
const module = {
  before64: { size: 896, members: { ...moduleMembers, core_layout: layout(320, 80, 'struct') } },
  since64: { size: 896, members: { ...moduleMembers, mem: arrayLayout(512, 2, layout(0, 64, 'struct')) } },
} as const;

class Layouts extends BtfLayouts {
  readonly #structs: typeof common;

  constructor(base: BtfLayouts, shape: keyof typeof module) {
    super(base.btf);
    this.#structs = { ...common, module: module[shape] };
  }

  override sizeOf(name: string): number | undefined {
    return this.#structs[name]?.size ?? super.sizeOf(name);
  }

  override member(name: string, path: string): MemberLayout | undefined {
    const known = this.#structs[name];
    return known === undefined ? super.member(name, path) : known.members[path];
  }
}

const TEXT = 0xffff_ffff_c010_0000n;
const DATA = 0xffff_ffff_c020_0000n;

/**
 * A kernel with one module of two areas, of which the text has two symbols; up to 6.3 the second area is not
 * known of.
 */
class ModuleKernel extends MadeKernel {
  override readonly layouts: BtfLayouts;

  constructor(shape: keyof typeof module) {
    super('debian13');
    this.layouts = new Layouts(openFixture('debian13').layouts, shape);
    const [head, entry, kallsyms, symtab, strtab] = Array.from({ length: 5 }, () =>
      this.physicalToVirtual(this.tables.allocate()),
    ) as [bigint, bigint, bigint, bigint, bigint];
    this.symbols.set('modules', head);
    for (const node of [head, entry + 8n]) {
      const other = node === head ? entry + 8n : head;
      this.#word(node, other);
      this.#word(node + 8n, other);
    }
    this.write(entry + 24n, Buffer.from('wifi\0'));
    this.#word(entry + 400n, kallsyms);
    const at = shape === 'before64' ? [320n] : [512n, 576n];
    for (const [i, offset] of at.entries()) {
      this.#word(entry + offset, i === 0 ? TEXT : DATA);
      this.#word(entry + offset + 8n, 0x3000n);
    }
    const names = '\0wifi_open\0wifi_close\0printk\0';
    this.write(strtab, Buffer.from(names));
    const symbols = [
      { name: 'wifi_close', section: 1, value: TEXT + 0x200n },
      { name: 'wifi_open', section: 1, value: TEXT + 0x100n },
      { name: 'printk', section: 0, value: 0n },
    ];
    for (const [i, { name, section, value }] of symbols.entries()) {
      const symbol = Buffer.alloc(24);
      symbol.writeUInt32LE(names.indexOf(name), 0);
      symbol.writeUInt16LE(section, 6);
      symbol.writeBigUInt64LE(value, 8);
      this.write(symtab + BigInt(i * 24), symbol);
    }
    this.#word(kallsyms, symtab);
    this.#word(kallsyms + 8n, BigInt(symbols.length));
    this.#word(kallsyms + 16n, strtab);
  }

  #word(address: bigint, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.write(address, bytes);
  }
}

const hex = (address: bigint): string => `0x${address.toString(16)}`;

for (const shape of ['before64', 'since64'] as const) {
  describe(`modules as kernels ${shape === 'since64' ? 'since' : 'before'} 6.4 have them`, () => {
    const kernel = new ModuleKernel(shape);
    const at = (address: bigint): string => symbolInspection(kernel, hex(address)).text();

    it('give names to addresses in them, and none beyond', () => {
      assert.equal(at(TEXT + 0x100n), `${hex(TEXT + 0x100n)} wifi_open [wifi]`);
      assert.equal(at(TEXT + 0x250n), `${hex(TEXT + 0x250n)} wifi_close+0x50 [wifi]`);
      assert.equal(at(TEXT), `${hex(TEXT)} [wifi]`);
      assert.throws(() => at(TEXT + 0x3000n), /is neither in kernel .* nor in a module of it/);
      if (shape === 'since64') assert.equal(at(DATA + 8n), `${hex(DATA + 8n)} [wifi]`);
      assert.deepEqual(symbolInspection(kernel, hex(TEXT + 0x101n)).json(), {
        ...{ address: hex(TEXT + 0x101n), name: 'wifi_open', offset: 1, module: 'wifi' },
      });
    });

    it('have their symbols found by name', () => {
      assert.equal(symbolInspection(kernel, 'wifi_open').text(), `${hex(TEXT + 0x100n)} wifi_open [wifi]`);
      assert.throws(() => symbolInspection(kernel, 'printk'), /has no symbol printk/);
    });
  });
}

describe('the image of a kernel', () => {
  it('ends where its last symbol does: what is behind it has no name', () => {
    const kernel = openFixture('debian13');
    const end = kernel.symbol('_end');
    assert.notEqual(kernel.symbolAt(end - 1n), undefined);
    for (const address of [end, end + 0x1380_0000n, TEXT]) assert.equal(kernel.symbolAt(address), undefined);
  });
});
