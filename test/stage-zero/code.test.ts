import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { areaCode, lowCode, symbols } from '../../src/stage-zero/code.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { assemble, codeFile } from '../../tools/stage-zero/build.ts';

test('the code is what the assembler makes of its source', () => {
  assert.equal(readFileSync(codeFile, 'utf8'), assemble());
});

test('the code ends before what lies behind it', () => {
  assert.ok(areaCode.length <= symbols.CONSTANTS);
  assert.ok(lowCode.length <= PAGE_SIZE);
  assert.ok(symbols.TEXT_SAVED + 8 <= symbols.DETOUR - symbols.CONSTANTS);
  assert.ok(symbols.DETOUR + symbols.detour_end - symbols.detour <= symbols.FALLBACK);
  assert.ok(symbols.STATE_TEXT_TAKEN + 4 <= symbols.SEAL_OFFSET);
  assert.ok(symbols.SLOT_SUM + 8 <= symbols.SLOT_SUMMED);
  assert.ok(symbols.SLOT_BYTES + 8 <= symbols.SLOT_XSAVE);
});

test('each gate is eight bytes and pushes the number of its vector', () => {
  assert.equal(symbols.gates % 8, 0);
  for (let vector = 0; vector < 32; vector++) {
    const at = symbols.gates + vector * 8;
    // PUSH imm8, and JMP to `exception`.
    assert.deepEqual([...areaCode.subarray(at, at + 2)], [0x6a, vector]);
    const isShort = areaCode[at + 2] === 0xeb;
    if (!isShort) assert.equal(areaCode[at + 2], 0xe9);
    const target = isShort ? at + 4 + areaCode.readInt8(at + 3) : at + 7 + areaCode.readInt32LE(at + 3);
    assert.equal(target, symbols.exception);
  }
});

test('the detour begins with one byte, as HLT is, and its numbers are in its instructions', () => {
  assert.equal(areaCode[symbols.detour], 0x90);
  for (const at of [symbols.detour_tables, symbols.detour_halted]) {
    assert.deepEqual([...areaCode.subarray(at - 2, at)], [0x48, 0xb8]);
    assert.equal(areaCode.readBigUInt64LE(at), 0x1122_3344_5566_7788n);
  }
});
