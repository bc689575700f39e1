import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { putProgramHeadersFirst } from '../../lab/elf-layout.ts';

const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;

/** The head of a dump: two program headers of two letters each behind `gap` bytes, then memory. */
function dump(gap: number): Buffer {
  const header = Buffer.alloc(ELF_HEADER);
  header.write('\x7fELF', 'latin1');
  header.writeBigUInt64LE(BigInt(ELF_HEADER + gap), 32);
  header.writeBigUInt64LE(BigInt(ELF_HEADER), 40);
  header.writeUInt16LE(PROGRAM_HEADER, 54);
  header.writeUInt16LE(2, 56);
  header.writeUInt16LE(64, 58);
  header.writeUInt16LE(2, 60);
  const table = Buffer.concat([Buffer.alloc(PROGRAM_HEADER, 'n'), Buffer.alloc(PROGRAM_HEADER, 'l')]);
  return Buffer.concat([header, Buffer.alloc(gap, 's'), table, Buffer.alloc(500, 'm')]);
}

describe("the program headers of QEMU's dumps", () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-elf-'));
  const path = join(directory, 'dump');
  after(() => rmSync(directory, { recursive: true }));

  it('come to where makedumpfile looks for them, and memory stays where it is', () => {
    const before = dump(128);
    writeFileSync(path, before);
    putProgramHeadersFirst(path);
    const now = readFileSync(path);
    assert.equal(now.readBigUInt64LE(32), BigInt(ELF_HEADER));
    assert.equal(now.readUInt16LE(56), 2);
    assert.deepEqual([now.readBigUInt64LE(40), now.readUInt16LE(60)], [0n, 0]);
    assert.equal(now.toString('latin1', 64, 64 + 112), 'n'.repeat(56) + 'l'.repeat(56));
    assert.ok(now.subarray(64 + 128 + 112).equals(before.subarray(64 + 128 + 112)));
  });

  it('stay where they are if they are there already', () => {
    writeFileSync(path, dump(0));
    putProgramHeadersFirst(path);
    assert.ok(readFileSync(path).equals(dump(0)));
  });
});
