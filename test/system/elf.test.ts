import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import {
  ELF_HEADER_BYTES,
  forgetSections,
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  parseElfHeader,
  parseNotes,
  parseProgramHeaders,
  programHeaderCount,
} from '../../src/system/elf.ts';

const EM_X86_64 = 62;

suite('an ELF file', () => {
  const node = readFileSync(process.execPath);
  const header = parseElfHeader(node);

  test('says where its segments are', () => {
    assert.equal(header?.machine, EM_X86_64);
    assert.equal(header.programHeaderBytes, PROGRAM_HEADER_BYTES);
    const bytes = programHeaderCount(header, () => assert.fail()) * PROGRAM_HEADER_BYTES;
    const start = header.programHeadersOffset;
    const segments = parseProgramHeaders(node.subarray(start, start + bytes));
    const loads = segments.filter(({ type }) => type === PT_LOAD);
    assert.ok(loads.length > 1 && loads.every(({ fileBytes, memoryBytes }) => fileBytes <= memoryBytes));
    assert.equal(loads[0]?.offset, 0);
  });

  test('has the number of its segments in section 0 if the header cannot count them', () => {
    const many = Buffer.from(node.subarray(0, ELF_HEADER_BYTES));
    many.writeUInt16LE(0xffff, 56);
    many.writeBigUInt64LE(4711n, 40);
    const counted = parseElfHeader(many);
    assert.equal(counted?.programHeaders, 'in section 0');
    const count = programHeaderCount(counted, (offset, length) => {
      assert.deepEqual([offset, length], [4711, 64]);
      const section = Buffer.alloc(length);
      section.writeUInt32LE(70_000, 44);
      return section;
    });
    assert.equal(count, 70_000);
    forgetSections(many);
    assert.equal(parseElfHeader(many)?.sectionHeadersOffset, 0);
  });

  test('is none if it is cut short, of 32 bits or something else', () => {
    const narrow = Buffer.from(node.subarray(0, ELF_HEADER_BYTES));
    narrow[4] = 1;
    for (const bytes of [
      node.subarray(0, ELF_HEADER_BYTES - 1),
      narrow,
      Buffer.alloc(ELF_HEADER_BYTES, '#!'),
    ])
      assert.equal(parseElfHeader(bytes), undefined);
  });

  test('has notes up to the first that does not fit', () => {
    const note = Buffer.alloc(20);
    for (const [i, word] of [4, 3, 7].entries()) note.writeUInt32LE(word, i * 4);
    note.write('GNU\0abc', 12, 'latin1');
    const notes = parseNotes(Buffer.concat([note, note, note.subarray(0, 18)]));
    assert.deepEqual(
      notes.map(({ name, type, description }) => [name, type, description.toString()]),
      [
        ['GNU', 7, 'abc'],
        ['GNU', 7, 'abc'],
      ],
    );
  });
});
