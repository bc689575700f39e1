import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { findMark, newMark } from '../../src/arm/loaded-mark.ts';
import { stateOf } from '../../src/arm/status.ts';
import { defaultConfig } from '../../src/config/config.ts';
import { type Armed, armedSchema } from '../../src/config/manifest.ts';
import { Kcore } from '../../src/vmcore/kcore.ts';

const MIB = 2 ** 20;
const directory = mkdtempSync(join(tmpdir(), 'otherworld-mark-'));
after(() => rmSync(directory, { recursive: true }));

/**
 * /proc/kcore of a machine whose memory from `physical` on is `memory`, with the text segment before it, as
 * the kernel writes it.
 */
function kcore(physical: number, memory: Buffer): Kcore {
  const header = Buffer.alloc(64 + 2 * 56);
  header.write('\x7fELF\x02\x01', 'latin1');
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(2, 56);
  const segment = (at: number, paddr: bigint, size: number): void => {
    header.writeUInt32LE(1, at);
    header.writeBigUInt64LE(4096n, at + 8);
    header.writeBigUInt64LE(paddr, at + 24);
    header.writeBigUInt64LE(BigInt(size), at + 40);
  };
  segment(64, 0xffffffffffffffffn, MIB);
  segment(64 + 56, BigInt(physical), memory.length);
  const path = join(directory, 'kcore');
  writeFileSync(path, Buffer.concat([header, Buffer.alloc(4096 - header.length), memory]));
  return new Kcore(path);
}

test('a mark is found in the reserved memory wherever it lies, across what is read at a time, and nowhere else', () => {
  const start = 64 * MIB;
  const mark = newMark();
  for (const at of [0, 12 * MIB - 20, 12 * MIB + 4, 20 * MIB - mark.length]) {
    const memory = Buffer.alloc(20 * MIB);
    memory.write(mark, at, 'latin1');
    using file = kcore(start, memory);
    assert.equal(findMark(file, mark, [{ start, end: start + 20 * MIB }]), start + at);
    assert.equal(findMark(file, newMark(), [{ start, end: start + 20 * MIB }]), undefined);
  }
});

test('a mark is found where the direct map is farther away in the file than a number can say', () => {
  const onTmpfs = mkdtempSync('/dev/shm/otherworld-mark-');
  after(() => rmSync(onTmpfs, { recursive: true }));
  const path = join(onTmpfs, 'kcore');
  const [start, offset] = [64 * MIB, 0x4b_7654_3210_1000n];
  const mark = newMark();
  const header = Buffer.alloc(64 + 56);
  header.write('\x7fELF\x02\x01', 'latin1');
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(1, 56);
  header.writeUInt32LE(1, 64);
  header.writeBigUInt64LE(offset, 64 + 8);
  header.writeBigUInt64LE(BigInt(start), 64 + 24);
  header.writeBigUInt64LE(BigInt(MIB), 64 + 40);
  writeFileSync(path, header);
  const at = 12_345;
  const place = [
    `of=${path}`,
    `seek=${offset + BigInt(at)}`,
    'oflag=seek_bytes',
    'conv=notrunc',
    'status=none',
  ];
  execFileSync('dd', place, { input: mark });
  using file = new Kcore(path);
  assert.equal(findMark(file, mark, [{ start, end: start + MIB }]), start + at);
});

const armed: Armed = armedSchema.parse({
  manifest: {
    version: 1,
    release: '6.12',
    bootId: '',
    armedAt: '',
    reservedBytes: 0,
    ranges: [],
    config: defaultConfig(),
  },
  commandLine: '',
  initramfsBytes: 0,
  neededBytes: 0,
  mark: { text: 'mark', address: 1 },
  sysctlsBefore: {},
});

test('what is loaded is ours only if it carries our mark; where that cannot be seen, status says so', () => {
  const current = () => undefined;
  assert.equal(stateOf(undefined, current).state, 'armed by another program');
  assert.equal(stateOf(armed, current, () => false).state, 'armed by another program');
  assert.equal(stateOf(armed, current, () => true).state, 'armed');
  assert.deepEqual(
    stateOf(armed, current, () => 'no /proc/kcore'),
    { state: 'cannot tell', hint: 'no /proc/kcore' },
  );
  assert.deepEqual(
    stateOf(
      armed,
      () => 'old',
      () => true,
    ),
    { state: 'stale', hint: 'old' },
  );
});
