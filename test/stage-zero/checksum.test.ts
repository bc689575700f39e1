import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checksum } from '../../src/stage-zero/checksum.ts';
import { areaCode, symbols } from '../../src/stage-zero/code.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-checksum-'));
after(() => rmSync(directory, { recursive: true }));

/** What the machine code makes of each buffer. */
function byMachine(buffers: readonly Uint8Array[]): string[] {
  const [program, code] = [join(directory, 'checksum'), join(directory, 'code')];
  const source = join(import.meta.dirname, 'checksum.c');
  execFileSync('gcc', ['-O1', '-mno-red-zone', '-Wall', '-Wextra', '-Werror', '-o', program, source]);
  writeFileSync(code, areaCode);
  const input = buffers.flatMap((bytes) => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(bytes.length));
    return [length, bytes];
  });
  const sums = execFileSync(program, [code, String(symbols.checksum)], { input: Buffer.concat(input) });
  return buffers.map((_, i) => sums.subarray(i * 8, i * 8 + 8).toString('hex'));
}

/** Bytes that look random and are the same in every run. */
function bytesOf(length: number, seed: number): Buffer {
  let state = seed;
  return Buffer.from(
    Uint8Array.from({ length }, () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
      return state >>> 16;
    }),
  );
}

test('is the same in TypeScript as by the machine code', () => {
  const ones = Buffer.alloc(4096, 0xff);
  const buffers = [
    Buffer.alloc(0),
    Buffer.alloc(8),
    ones,
    bytesOf(8, 1),
    bytesOf(16, 2),
    bytesOf(100_000, 3),
  ];
  assert.deepEqual(
    buffers.map((bytes) => checksum(bytes).toString('hex')),
    byMachine(buffers),
  );
});

test('takes what is missing in the last word as zeros, wherever the bytes lie', () => {
  const bytes = bytesOf(61, 4);
  const whole = Buffer.concat([bytes, Buffer.alloc(3)]);
  const elsewhere = Buffer.concat([Buffer.alloc(3), whole]).subarray(3);
  assert.deepEqual(checksum(bytes), checksum(whole));
  assert.deepEqual(checksum(elsewhere), checksum(whole));
});

test('finds every bit that is wrong', () => {
  const bytes = bytesOf(128, 5);
  const right = checksum(bytes);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const wrong = Buffer.from(bytes);
    wrong[bit >> 3] = (wrong[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.notDeepEqual(checksum(wrong), right, `bit ${bit}`);
  }
});

test('finds two words that are wrong in their highest bits, and two that changed places', () => {
  const bytes = bytesOf(256, 6);
  const right = checksum(bytes);
  for (let first = 3; first < bytes.length; first += 4) {
    for (let second = first + 4; second < bytes.length; second += 4) {
      const wrong = Buffer.from(bytes);
      for (const at of [first, second]) wrong[at] = (wrong[at] ?? 0) ^ 0x80;
      assert.notDeepEqual(checksum(wrong), right, `bytes ${first} and ${second}`);
    }
  }
  const swapped = Buffer.concat([bytes.subarray(8, 16), bytes.subarray(0, 8), bytes.subarray(16)]);
  assert.notDeepEqual(checksum(swapped), right);
});
