import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { LOW_PAGES, noteOf, stageZeroArea, stageZeroBytes } from '../../src/stage-zero/area.ts';
import { checksum } from '../../src/stage-zero/checksum.ts';
import { areaCode, lowCode, symbols } from '../../src/stage-zero/code.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { ADDRESS, HIGH_ADDRESS, MadeArea, madeInputs } from './made-area.ts';
import { walkTables } from './walk.ts';

const GATES = 32;
const LOW_BYTES = LOW_PAGES * PAGE_SIZE;

/** A descriptor table as LGDT and LIDT take it: where it begins, and its bytes. */
function pointer({ bytes, inputs }: MadeArea, symbol: number): { start: number; bytes: number } {
  const at = symbols.CONSTANTS + symbol;
  return {
    start: Number(bytes.readBigUInt64LE(at + 2)) - inputs.address,
    bytes: bytes.readUInt16LE(at) + 1,
  };
}

/** Where a gate leads, as an offset in the area. */
function gateTarget({ bytes, inputs }: MadeArea, at: number): number {
  const [low, middle, high] = [
    bytes.readUInt16LE(at),
    bytes.readUInt16LE(at + 6),
    bytes.readUInt32LE(at + 8),
  ];
  return high * 2 ** 32 + middle * 2 ** 16 + low - inputs.address;
}

/** Everything in the area: what, where, how long. */
function parts(area: MadeArea): [string, number, number][] {
  const { cpus, loaded } = area.inputs;
  const tables = Math.min(area.offset(symbols.CR3_LEVEL4), area.offset(symbols.CR3_LEVEL5));
  const [gdt, idt, parkedIdt] = [symbols.GDT_POINTER, symbols.IDT_POINTER, symbols.PARKED_IDT].map((symbol) =>
    pointer(area, symbol),
  );
  return [
    ['code', 0, areaCode.length],
    ['constants', symbols.CONSTANTS, symbols.DETOUR - symbols.CONSTANTS],
    ['detour', symbols.DETOUR, symbols.detour_end - symbols.detour],
    ['fallback record', symbols.FALLBACK, symbols.FALLBACK_SUM + 8],
    ['table of CPUs', area.offset(symbols.TABLE), cpus.length * symbols.CPU_ENTRY_BYTES],
    ['digests', area.offset(symbols.DIGESTS), loaded.length * symbols.DIGEST_BYTES],
    ['GDT', gdt?.start ?? 0, gdt?.bytes ?? 0],
    ['IDT', idt?.start ?? 0, idt?.bytes ?? 0],
    ['IDT of parked CPUs', parkedIdt?.start ?? 0, parkedIdt?.bytes ?? 0],
    ['page tables', tables, area.offset(symbols.LOW_CONTENT) - tables],
    ['content of the low pages', area.offset(symbols.LOW_CONTENT), LOW_BYTES],
    ['state', area.offset(symbols.STATE), PAGE_SIZE],
    ['stack', area.offset(symbols.STACK) - PAGE_SIZE, PAGE_SIZE],
    ['stack of parked CPUs', area.offset(symbols.PARKED_STACK) - PAGE_SIZE, PAGE_SIZE],
    ['the low pages’ own content', area.offset(symbols.LOW_SAVED), LOW_BYTES],
    ['the text’s own content', area.offset(symbols.TEXT_SAVED), symbols.detour_end - symbols.detour],
    ...cpus.map(({ apicId }): [string, number, number] => [
      `slot of ${apicId}`,
      area.slot(apicId),
      symbols.SLOT_XSAVE + area.inputs.xsaveBytes,
    ]),
  ];
}

for (const [machine, inputs] of Object.entries({
  'four processors': madeInputs(),
  '600 processors with AMX, above 4 GiB': madeInputs({
    address: HIGH_ADDRESS,
    cpus: Array.from({ length: 600 }, (_, apicId) => ({ apicId, isBoot: apicId === 0 })),
    xsaveBytes: 11_072,
    reserved: [{ start: HIGH_ADDRESS, end: HIGH_ADDRESS + 2 ** 29 }],
  }),
  'one processor': madeInputs({ cpus: [{ apicId: 3, isBoot: true }] }),
})) {
  suite(`the area for ${machine}`, () => {
    const area = new MadeArea(inputs);
    const sealed = area.constant(symbols.SEALED_BYTES);

    test('has each part inside of it and behind the one before', () => {
      let end = 0;
      for (const [name, start, length] of parts(area)) {
        assert.ok(start >= end, `${name} begins at ${start}, before ${end}`);
        end = start + length;
      }
      assert.ok(end <= area.bytes.length);
      assert.equal(area.bytes.length % PAGE_SIZE, 0);
      assert.equal(area.constant(symbols.AREA_BYTES), area.bytes.length);
    });

    test('is sealed up to what changes, and the seal lies where the code looks for it', () => {
      assert.equal(area.offset(symbols.SEAL), sealed + symbols.SEAL_OFFSET);
      assert.equal(area.offset(symbols.STATE), sealed);
      const seal = area.offset(symbols.SEAL);
      assert.deepEqual(area.bytes.subarray(seal, seal + 8), checksum(area.bytes.subarray(0, sealed)));
      assert.ok(sealed < 0x100_0000, 'stage-zero.S believes no more');
      for (const symbol of [symbols.STACK, symbols.PARKED_STACK, symbols.LOW_SAVED, symbols.TEXT_SAVED])
        assert.ok(area.offset(symbol) > sealed);
    });

    test('begins with the code, and changes what XSAVE needs aligned', () => {
      assert.deepEqual(area.bytes.subarray(0, areaCode.length), areaCode);
      for (const { apicId } of inputs.cpus) assert.equal((area.slot(apicId) + symbols.SLOT_XSAVE) % 64, 0);
      for (const symbol of [symbols.STACK, symbols.PARKED_STACK]) assert.equal(area.offset(symbol) % 16, 0);
      assert.ok(area.constant(symbols.SLOT_ROOM) >= inputs.xsaveBytes);
    });

    test('has an entry for each processor', () => {
      for (const [i, { apicId, isBoot }] of inputs.cpus.entries()) {
        const entry = area.offset(symbols.TABLE) + i * symbols.CPU_ENTRY_BYTES;
        assert.equal(area.bytes.readUInt32LE(entry + symbols.CPU_APIC_ID), apicId);
        const start = area.bytes.readUInt32LE(entry + symbols.CPU_START);
        assert.equal(start, isBoot ? symbols.BY_SMI : symbols.BY_INIT);
      }
      assert.equal(area.constant(symbols.CPUS), inputs.cpus.length);
    });

    test('has gates that lead to their code', () => {
      const [idt, parked] = [pointer(area, symbols.IDT_POINTER), pointer(area, symbols.PARKED_IDT)];
      assert.deepEqual([idt.bytes, parked.bytes], [GATES * 16, GATES * 16]);
      for (let vector = 0; vector < GATES; vector++) {
        assert.equal(gateTarget(area, idt.start + vector * 16), symbols.gates + vector * 8);
        assert.equal(gateTarget(area, parked.start + vector * 16), symbols.parked);
        for (const { start } of [idt, parked]) {
          assert.equal(area.bytes.readUInt16LE(start + vector * 16 + 2), symbols.CODE_SELECTOR);
          // Present, interrupt gate, no stack of its own.
          assert.equal(area.bytes.readUInt16LE(start + vector * 16 + 4), 0x8e00);
          assert.equal(area.bytes.readUInt32LE(start + vector * 16 + 12), 0);
        }
      }
    });

    test('has segments of 64-bit code and of data that the processor need not mark as used', () => {
      const gdt = pointer(area, symbols.GDT_POINTER);
      const access = (selector: number): number => area.bytes.readUInt8(gdt.start + selector + 5);
      assert.equal(gdt.bytes, 32);
      assert.equal(access(symbols.CODE_SELECTOR), 0x9b);
      assert.equal(access(symbols.DATA_SELECTOR), 0x93);
      assert.equal(area.bytes.readUInt8(gdt.start + symbols.CODE_SELECTOR + 6), 0xaf);
    });

    test('has page tables that map all of it', () => {
      const at = area.offset(symbols.CR3_LEVEL5);
      const tables = area.bytes.subarray(at, area.offset(symbols.LOW_CONTENT));
      for (const [symbol, levels] of [
        [symbols.CR3_LEVEL4, 4],
        [symbols.CR3_LEVEL5, 5],
      ] as const) {
        const where = { address: inputs.address + at, top: area.constant(symbol), levels };
        const { pages } = walkTables(tables, where);
        for (let page = 0; page < area.bytes.length; page += 2 ** 21) {
          const wanted = Math.floor((inputs.address + page) / 2 ** 21) * 2 ** 21;
          assert.ok(pages.some(({ virtual, physical }) => virtual === BigInt(wanted) && physical === wanted));
        }
      }
    });
  });
}

test('the fallback record has a checksum of its own', () => {
  const { bytes, inputs } = new MadeArea();
  const record = bytes.subarray(symbols.FALLBACK, symbols.FALLBACK + symbols.FALLBACK_SUM);
  assert.equal(Number(record.readBigUInt64LE(symbols.FALLBACK_ENTRY)), inputs.kernelEntry);
  assert.equal(Number(record.readBigUInt64LE(symbols.FALLBACK_PARAMS)), inputs.bootParams);
  const sum = symbols.FALLBACK + symbols.FALLBACK_SUM;
  assert.deepEqual(bytes.subarray(sum, sum + 8), checksum(record));
});

test('each segment has its address, its bytes in whole words, and its checksum', () => {
  const area = new MadeArea();
  const { loaded } = area.inputs;
  assert.equal(area.constant(symbols.DIGEST_COUNT), loaded.length);
  for (const [i, { address, bytes }] of loaded.entries()) {
    const entry = area.offset(symbols.DIGESTS) + i * symbols.DIGEST_BYTES;
    const words = Number(area.bytes.readBigUInt64LE(entry + 8));
    assert.equal(Number(area.bytes.readBigUInt64LE(entry)), address);
    assert.ok(words % 8 === 0 && words >= bytes.length && words < bytes.length + 8);
    const padded = Buffer.concat([bytes, Buffer.alloc(words - bytes.length)]);
    assert.deepEqual(area.bytes.subarray(entry + 16, entry + 24), checksum(padded));
  }
});

test('the note tells where the area is and how long', () => {
  const area = new MadeArea();
  const [note, ...rest] = area.notes;
  assert.deepEqual(rest, []);
  assert.equal(note?.name, 'Otherworld');
  assert.equal(Number(note?.description.readBigUInt64LE(0)), ADDRESS);
  assert.equal(Number(note?.description.readBigUInt64LE(8)), stageZeroBytes(area.inputs));
  assert.equal(noteOf(ADDRESS).address, ADDRESS + noteOf(0).address);
});

test('the low pages have the code, its numbers, and tables for the way to long mode', () => {
  const area = new MadeArea(madeInputs({ lowMemory: 0x8000 }));
  const at = area.offset(symbols.LOW_CONTENT);
  const content = area.bytes.subarray(at, at + LOW_BYTES);
  assert.equal(area.constant(symbols.LOW), 0x8000);
  assert.equal(area.constant(symbols.LOW_BYTES), LOW_BYTES);
  assert.deepEqual(content.subarray(0, symbols.low_jump), lowCode.subarray(0, symbols.low_jump));
  assert.equal(content.readUInt32LE(symbols.low_jump), 0x8000 + symbols.low_long);
  assert.equal(content.readUInt16LE(symbols.low_jump + 4), symbols.CODE_SELECTOR);
  assert.equal(content.readUInt32LE(symbols.low_cr3), 0x9000);
  assert.equal(Number(content.readBigUInt64LE(symbols.low_tables)), area.constant(symbols.CR3_LEVEL4));
  assert.equal(Number(content.readBigUInt64LE(symbols.low_started)), ADDRESS + symbols.started);
  assert.equal(content.readUInt16LE(symbols.low_gdt_pointer), 31);
  assert.equal(content.readUInt32LE(symbols.low_gdt_pointer + 2), 0x8000 + symbols.low_gdt);
  const tables = { address: 0x9000, top: 0x9000, levels: 4 } as const;
  assert.equal(walkTables(content.subarray(PAGE_SIZE), tables).pages.length, 1);
});

test('the detour leads to the area by the page tables that the dead kernel’s levels need', () => {
  for (const [fiveLevels, top] of [
    [false, symbols.CR3_LEVEL4],
    [true, symbols.CR3_LEVEL5],
  ] as const) {
    const area = new MadeArea(madeInputs({ fiveLevels }));
    const { haltText } = area.inputs;
    const code = area.bytes.subarray(symbols.DETOUR, symbols.DETOUR + area.constant(symbols.TEXT_BYTES));
    assert.equal(area.constant(symbols.TEXT), haltText?.physical);
    assert.equal(area.offset(symbols.TEXT_CONTENT), symbols.DETOUR);
    const word = (symbol: number): number => Number(code.readBigUInt64LE(symbol - symbols.detour));
    assert.equal(word(symbols.detour_tables), area.constant(top));
    assert.equal(word(symbols.detour_halted), ADDRESS + symbols.halted);
  }
});

test('without low memory no processor is started, and without the text the boot processor is not called', () => {
  const area = new MadeArea(madeInputs({ lowMemory: undefined, haltText: undefined }));
  assert.equal(area.constant(symbols.LOW_BYTES), 0);
  assert.equal(area.constant(symbols.TEXT), 0);
});

test('the boot and the time limit are in it', () => {
  const area = new MadeArea();
  const at = symbols.CONSTANTS + symbols.BOOT_ID;
  assert.deepEqual(area.bytes.subarray(at, at + 16), area.inputs.bootId);
  assert.equal(area.constant(symbols.ANSWER_TICKS), 8_000_000);
  assert.equal(area.constant(symbols.REPEAT_TICKS), 1_000_000);
});

test('another number of segments than was told is an error', () => {
  assert.throws(() => stageZeroArea(madeInputs({ segments: 3 })), RangeError);
});
