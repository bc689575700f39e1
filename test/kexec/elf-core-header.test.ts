import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  type ElfCoreContent,
  elfCoreHeaderBytes,
  encodeElfCoreHeader,
} from '../../src/kexec/elf-core-header.ts';
import {
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  PT_NOTE,
  parseElfHeader,
  parseProgramHeaders,
} from '../../src/system/elf.ts';
import { GIB, resources, small } from './made-image.ts';

const notes = [
  { address: 0x7ea3d800, bytes: 368 },
  { address: 0x7eb3d800, bytes: 368 },
  { address: 0x1a3e000, bytes: 0x1024 },
];

interface Segment {
  readonly type: number;
  readonly physical: number;
  readonly bytes: number;
  readonly virtual: bigint;
}

/** The segments as the crash kernel reads them; their offset is their physical address. */
function segmentsOf(content: ElfCoreContent): Segment[] {
  const header = encodeElfCoreHeader(content);
  assert.equal(header.length, elfCoreHeaderBytes(content));
  const table = header.subarray(64);
  const parsed = parseProgramHeaders(table);
  assert.equal(parseElfHeader(header)?.programHeaders, parsed.length);
  return parsed.map(({ type, offset, physical, fileBytes, memoryBytes }, index) => {
    assert.equal(offset, physical);
    assert.equal(fileBytes, memoryBytes);
    const virtual = table.readBigUInt64LE(index * PROGRAM_HEADER_BYTES + 16);
    return { type, physical, bytes: memoryBytes, virtual };
  });
}

const loads = (content: ElfCoreContent) =>
  segmentsOf(content)
    .filter(({ type }) => type === PT_LOAD)
    .map(({ physical, bytes, virtual }) => [physical, physical + bytes, virtual]);

suite('a core header', () => {
  test('is one that the crash kernel takes for a core of x86-64', () => {
    const header = encodeElfCoreHeader({ resources: small, notes });
    const parsed = parseElfHeader(header);
    assert.equal(parsed?.type, 4);
    assert.equal(parsed.machine, 62);
    assert.equal(parsed.programHeadersOffset, 64);
    assert.deepEqual([header.readUInt8(6), header.readUInt32LE(20)], [1, 1]);
    assert.deepEqual([header.readUInt16LE(52), header.readUInt16LE(54)], [64, 56]);
  });

  test('has a segment for each note', () => {
    const found = segmentsOf({ resources: small, notes }).filter(({ type }) => type === PT_NOTE);
    assert.deepEqual(
      found.map(({ physical, bytes }) => ({ address: physical, bytes })),
      notes,
    );
  });

  test('has RAM without the first mebibyte and the reservation', () => {
    assert.deepEqual(loads({ resources: small, notes }), [
      [0x100000, 0x6a000000, 0n],
      [0x7e000000, 0x7ffdd000, 0n],
    ]);
  });

  test('has hot-added memory, and no reservation of two', () => {
    const large = resources(
      [0x100000, GIB - 1, 'System RAM'],
      [0x10000000, 0x1fffffff, 'Crash kernel', 1],
      [4 * GIB, 8 * GIB - 1, 'System RAM'],
      [4 * GIB, 5 * GIB - 1, 'Crash kernel', 1],
      [9 * GIB, 10 * GIB - 1, 'Persistent Memory'],
      [9 * GIB, 10 * GIB - 1, 'System RAM (kmem)', 2],
    );
    assert.deepEqual(
      loads({ resources: large, notes }).map(([start, end]) => [start, end]),
      [
        [0x100000, 0x10000000],
        [0x20000000, GIB],
        [5 * GIB, 8 * GIB],
        [9 * GIB, 10 * GIB],
      ],
    );
  });

  test('has RAM in one piece where the boot loader left something in it', () => {
    const cut = resources(
      [0x100000, 0x1fed06f, 'System RAM'],
      [0x1fed070, 0x1fed07f, 'System RAM'],
      [0x1fed080, GIB - 1, 'System RAM'],
      [0x10000000, 0x1fffffff, 'Crash kernel', 1],
    );
    assert.deepEqual(
      loads({ resources: cut, notes }).map(([start, end]) => [start, end]),
      [
        [0x100000, 0x10000000],
        [0x20000000, GIB],
      ],
    );
  });

  test('has virtual addresses in the direct map, and the text, if it is told where they are', () => {
    const directMap = 0xffff_9a00_0000_0000n;
    const textVirtual = 0xffff_ffff_8320_0000n;
    assert.deepEqual(loads({ resources: small, notes, directMap, textVirtual }), [
      [0x0d000000, 0x0fc00000, textVirtual],
      [0x100000, 0x6a000000, directMap + 0x100000n],
      [0x7e000000, 0x7ffdd000, directMap + 0x7e000000n],
    ]);
  });

  test('has further memory', () => {
    const more = [
      { address: 0x7dff0000, bytes: 0x3000 },
      { address: 0x7dff8000, bytes: 0x1000, virtual: 5n },
    ];
    assert.deepEqual(loads({ resources: small, notes, loads: more }).slice(2), [
      [0x7dff0000, 0x7dff3000, 0n],
      [0x7dff8000, 0x7dff9000, 5n],
    ]);
  });

  test('is refused if the text is nowhere, or if it cannot count its segments', () => {
    const hidden = resources([0x100000, GIB - 1, 'System RAM'], [0x10000000, 0x1fffffff, 'Crash kernel', 1]);
    assert.throws(() => encodeElfCoreHeader({ resources: hidden, notes, textVirtual: 1n }), {
      name: 'KexecError',
      message: /has no "Kernel code"/,
    });
    const many = Array.from({ length: 0xffff }, () => ({ address: 0x1000, bytes: 1 }));
    assert.throws(() => encodeElfCoreHeader({ resources: small, notes: many }), /counts up to 65534/);
  });
});
