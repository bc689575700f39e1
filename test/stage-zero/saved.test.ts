import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { symbols } from '../../src/stage-zero/code.ts';
import { type StageZeroResult, savedState } from '../../src/stage-zero/saved.ts';
import type { ElfNote } from '../../src/system/elf.ts';
import { ADDRESS, MadeArea } from './made-area.ts';

/** An area of XSAVE with these components. */
function withComponents(components: bigint): Buffer {
  const xsave = Buffer.alloc(832, 0xab);
  xsave.writeBigUInt64LE(components, 512);
  return xsave;
}

const registers = withComponents(7n);

function read(area: MadeArea, notes: readonly ElfNote[] = area.notes): StageZeroResult {
  const result = savedState(notes, area);
  assert.ok(result !== undefined);
  return result;
}

/** The note as it would be with another address and size. */
function noteWith(area: MadeArea, address: bigint, bytes: bigint): ElfNote[] {
  return area.notes.map((note) => {
    const description = Buffer.from(note.description);
    description.writeBigUInt64LE(address, 0);
    description.writeBigUInt64LE(bytes, 8);
    return { ...note, description };
  });
}

suite('what stage zero saved', () => {
  test('is there by APIC id, with the time that it took', () => {
    const area = new MadeArea();
    area.save(2, registers, { xcr0: 0x207n, kernelGsBase: 0x7f12_3456_7000n });
    area.save(5, registers.subarray(0, 576));
    area.finish();
    area.setState(symbols.STATE_MISSING, 1);
    const { cpus, ...result } = read(area);
    assert.deepEqual(result, {
      ...{ phase: 'done', exception: undefined, ticks: 4000, missing: 1, problems: [] },
      bootId: area.inputs.bootId,
    });
    assert.deepEqual([...cpus.keys()], [2, 5]);
    const xsave = registers;
    assert.deepEqual(cpus.get(2), { apicId: 2, xcr0: 0x207n, kernelGsBase: 0x7f12_3456_7000n, xsave });
    assert.equal(cpus.get(5)?.xsave.length, 576);
  });

  test('is nothing if it was not entered', () => {
    const { phase, ticks, cpus, problems } = read(new MadeArea());
    assert.deepEqual([phase, ticks, cpus.size, problems], ['not entered', undefined, 0, []]);
  });

  test('tells what was not put back', () => {
    const area = new MadeArea();
    area.setState(symbols.STATE_PHASE, symbols.PHASE_FAULT);
    area.setState(symbols.STATE_LOW_TAKEN, 1);
    area.setState(symbols.STATE_TEXT_TAKEN, 1);
    assert.deepEqual(read(area).problems, [
      'what the dead kernel had in some pages below 1 MiB was not put back',
      "a piece of the dead kernel's text (native_halt) was not put back",
    ]);
  });

  test('tells of an exception', () => {
    const area = new MadeArea();
    area.setState(symbols.STATE_PHASE, symbols.PHASE_FAULT);
    area.setState(symbols.STATE_VECTOR, 2);
    area.setState(symbols.STATE_IP, 0x1234);
    const { phase, exception } = read(area);
    assert.deepEqual([phase, exception], ['stopped by an exception', { vector: 2, ip: 0x1234n }]);
  });
});

suite('a slot is not believed', () => {
  for (const [why, damage] of Object.entries({
    'if its checksum is another': (area, slot) => {
      area.bytes.writeUInt8(1, slot + symbols.SLOT_XSAVE + 700);
    },
    'if its GS base is another': (area, slot) => {
      area.bytes.writeUInt8(1, slot + symbols.SLOT_KERNEL_GS + 2);
    },
    'if it has components that were not on': (area) => {
      area.save(2, withComponents(0x207n), { xcr0: 7n });
    },
    'if it is another processor’s': (area, slot) => {
      area.bytes.writeUInt32LE(5, slot + symbols.SLOT_APIC_ID);
    },
    'if it is larger than there is room': (area, slot) => {
      area.bytes.writeBigUInt64LE(2n ** 40n, slot + symbols.SLOT_BYTES);
    },
  } satisfies Record<string, (area: MadeArea, slot: number) => void>)) {
    test(why, () => {
      const area = new MadeArea();
      for (const apicId of [1, 2]) area.save(apicId, registers);
      area.finish();
      damage(area, area.slot(2));
      const { cpus, problems } = read(area);
      assert.deepEqual([...cpus.keys()], [1]);
      assert.deepEqual(problems, ['what the processor with APIC id 2 saved is damaged']);
    });
  }

  test('if it reaches into the next one, whatever its checksum', () => {
    const area = new MadeArea();
    area.save(2, Buffer.alloc(area.constant(symbols.SLOT_ROOM) + 8, 0xab));
    assert.deepEqual(read(area).problems, ['what the processor with APIC id 2 saved is damaged']);
  });

  test('if the processor had not come to its end', () => {
    const area = new MadeArea();
    area.save(2, registers);
    area.bytes.writeUInt32LE(1, area.slot(2) + symbols.SLOT_STATUS);
    assert.equal(read(area).cpus.size, 0);
  });
});

suite('nothing is believed', () => {
  function nothing(area: MadeArea, problem: RegExp, notes?: readonly ElfNote[]): void {
    const { cpus, problems, phase } = read(area, notes);
    assert.deepEqual([cpus.size, phase, problems.length], [0, 'not entered', 1]);
    assert.match(problems[0] ?? '', problem);
  }

  function saved(): MadeArea {
    const area = new MadeArea();
    area.save(2, registers);
    area.finish();
    return area;
  }

  test('if anything changed that has a seal, wherever', () => {
    const sealed = saved().constant(symbols.SEALED_BYTES);
    for (const at of [0, symbols.CONSTANTS + symbols.TABLE, symbols.FALLBACK, sealed - 1]) {
      const area = saved();
      area.bytes[at] = (area.bytes[at] ?? 0) ^ 0x10;
      nothing(area, /it was overwritten before the panic, and did nothing/);
    }
    const area = saved();
    area.bytes.writeUInt8(0, area.offset(symbols.SEAL));
    nothing(area, /it was overwritten/);
  });

  test('if the constants lead out of the area', () => {
    for (const symbol of [symbols.SEALED_BYTES, symbols.SEAL]) {
      for (const value of [2n ** 63n, 2n ** 27n, 0n]) {
        if (symbol === symbols.SEALED_BYTES && value === 0n) continue;
        const area = saved();
        area.bytes.writeBigUInt64LE(value, symbols.CONSTANTS + symbol);
        nothing(area, /its constants are damaged/);
      }
    }
  });

  test('if there is another thing where the note says', () => {
    const area = saved();
    area.bytes.fill(0, symbols.CONSTANTS, symbols.CONSTANTS + 8);
    nothing(area, /there is no such area where its note says/);
  });

  test('if the note is wild', () => {
    const area = saved();
    const { length } = area.bytes;
    for (const bytes of [0n, 16n, 0x1008n, 0x3000n, 2n ** 26n + 1n, 2n ** 64n - 1n])
      nothing(area, /its note has \d+ bytes/, noteWith(area, BigInt(ADDRESS), bytes));
    nothing(area, /its note has/, noteWith(area, 2n ** 63n, BigInt(length)));
  });

  test('if the note is too short for all of it', () => {
    const area = saved();
    const slots = area.slot(0);
    for (const bytes of [0x4000, slots, area.slot(5)])
      nothing(area, /damaged|longer/, noteWith(area, BigInt(ADDRESS), BigInt(bytes)));
  });
});

test('there was no stage zero if no note tells of it', () => {
  const area = new MadeArea();
  assert.equal(savedState([], area), undefined);
  const other = area.notes.map((note) => ({ ...note, name: 'VMCOREINFO' }));
  assert.equal(savedState(other, area), undefined);
  const short = area.notes.map((note) => ({ ...note, description: Buffer.alloc(8) }));
  assert.equal(savedState(short, area), undefined);
});

test('memory that is not there is the reader’s error', () => {
  const area = new MadeArea();
  const notes = noteWith(area, BigInt(ADDRESS - 4096), BigInt(area.bytes.length));
  assert.throws(() => savedState(notes, area), /not in memory/);
});
