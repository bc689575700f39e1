import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { decompressPage, PAGE_FLAGS } from '../../src/vmcore/decompress.ts';
import { AddressError, FormatError, VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { lzoDecompress } from '../../src/vmcore/lzo.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { openFixture, scratch } from './fixtures.ts';
import { type Compression, type KdumpFaults, writeKdump } from './kdump-write.ts';

const elf = openFixture('debian12');
const info = [...elf.vmcoreinfo].map(([key, value]) => `${key}=${value}\n`).join('');

function dump(compression: Compression, faults?: KdumpFaults): string {
  const path = scratch(`kdump-${compression}`);
  writeFileSync(path, writeKdump(elf.physical, info, compression, faults));
  return path;
}

function sameMemory(kernel: Kernel): void {
  for (const { physical, length } of elf.physical.ranges) {
    assert.ok(
      Buffer.from(elf.physical.view(physical, length)).equals(kernel.physical.view(physical, length)),
    );
  }
}

/** The last page that is memory below an address. */
function lastPageBefore({ physical }: Kernel, end: number): number {
  let at = end - 4096;
  while (!physical.has(at, 4096)) at -= 4096;
  return at;
}

/**
 * The file as `makedumpfile -F` would write it: the header comes first with wrong content, and again at the
 * end.
 */
function flatten(whole: Buffer): Buffer {
  const header = Buffer.alloc(4096);
  header.write('makedumpfile\0', 'latin1');
  const block = (offset: number, data: Buffer): Buffer[] => {
    const place = Buffer.alloc(16);
    place.writeBigInt64BE(BigInt(offset));
    place.writeBigInt64BE(BigInt(data.length), 8);
    return [place, data];
  };
  const parts = [header, ...block(0, Buffer.alloc(9000))];
  for (let at = 8000; at < whole.length; at += 70_001)
    parts.push(...block(at, whole.subarray(at, at + 70_001)));
  parts.push(...block(0, whole.subarray(0, 8500)), Buffer.alloc(16, 0xff));
  return Buffer.concat(parts);
}

describe('a kdump-compressed dump', () => {
  for (const compression of ['none', 'zlib', 'lzo', 'snappy', 'zstd'] as const) {
    it(`with ${compression} pages holds the same memory and the same processes as the ELF dump`, () => {
      const kernel = openKernel(dump(compression));
      sameMemory(kernel);
      assert.deepEqual(listProcesses(kernel), listProcesses(elf));
      kernel.close();
    });
  }

  it('is read out of a flattened file, whose blocks come in any order and over each other', () => {
    const whole = readFileSync(dump('zstd'));
    writeFileSync(scratch('kdump-flat'), flatten(whole));
    const kernel = openKernel(scratch('kdump-flat'));
    sameMemory(kernel);
    kernel.close();
    writeFileSync(scratch('kdump-flat'), flatten(whole.subarray(0, -20_000)));
    const partly = openKernel(scratch('kdump-flat'));
    assert.throws(
      () => sameMemory(partly),
      /is missing from an incomplete or damaged dump|lies behind the end/,
    );
    partly.close();
  });

  it('is refused if it is flattened and damaged', () => {
    const flat = flatten(readFileSync(dump('zstd')));
    for (const [at, value] of [
      [4096, -7n],
      [4104, -1n],
      [4104, 0n],
      [4104, 1n << 60n],
    ] as const) {
      const copy = Buffer.from(flat);
      copy.writeBigInt64BE(value, at);
      writeFileSync(scratch('kdump-flat'), copy);
      assert.throws(() => openKernel(scratch('kdump-flat')), FormatError);
    }
  });

  it('writes runs of memory to a file', () => {
    const kernel = openKernel(dump('zstd'));
    const runs = elf.physical.ranges.slice(0, 20);
    for (const { path, physical } of [
      { path: scratch('runs-elf'), physical: elf.physical },
      { path: scratch('runs-kdump'), physical: kernel.physical },
    ]) {
      const fd = openSync(path, 'w');
      assert.equal(
        physical.writeRuns(fd, runs),
        runs.reduce((sum, { length }) => sum + length, 0),
      );
      closeSync(fd);
    }
    assert.ok(readFileSync(scratch('runs-elf')).equals(readFileSync(scratch('runs-kdump'))));
  });

  it('says that it is incomplete, and which address is missing', () => {
    const kernel = openKernel(dump('zlib', { incomplete: true }));
    assert.match(kernel.warnings.join(), /incomplete/);
    // Pages of zeros are stored once, wherever the first of them is.
    const pages = elf.physical.ranges.flatMap(({ physical, length }) =>
      Array.from({ length: length / 4096 }, (_, i) => physical + i * 4096),
    );
    const missing = pages.findLast((page) => elf.physical.view(page, 4096).some((byte) => byte !== 0));
    assert.throws(
      () => kernel.physical.view(missing ?? 0, 8),
      /is missing from an incomplete or damaged dump/,
    );
  });

  it('is read as far as it goes if there was no room for a cycle of makedumpfile, whose bitmap it lacks', () => {
    const { physical = 0, length = 0 } = elf.physical.ranges.at(-1) ?? {};
    const end = physical + length;
    const early = elf.physical.ranges[0]?.physical ?? 0;
    const secondCycle = end / 4096 - 1;
    const lastOfFirst = lastPageBefore(elf, end - 4096);
    for (const leavesOut of [undefined, (frame: number) => frame === early / 4096 + 1]) {
      const kernel = openKernel(dump('zlib', { incomplete: true, secondCycle, leavesOut }));
      assert.deepEqual(kernel.warnings, [
        'incomplete: makedumpfile ran out of room, so some pages are missing',
      ]);
      assert.ok(kernel.physical.has(early, 4096));
      assert.deepEqual(kernel.physical.view(early, 4096), new Uint8Array(elf.physical.view(early, 4096)));
      // Of the first cycle the last pages have no content, and of the second there is nothing at all.
      for (const at of [lastOfFirst, end - 4096]) {
        assert.equal(kernel.physical.has(at, 4096), false);
        assert.throws(() => kernel.physical.view(at, 8), AddressError);
      }
      kernel.close();
    }
  });

  it('says that it is cut off, and is read as far as it goes', () => {
    const whole = readFileSync(dump('zlib'));
    assert.deepEqual(openKernel(dump('zlib')).warnings, []);
    writeFileSync(scratch('kdump-cut'), whole.subarray(0, whole.length - 5000));
    const kernel = openKernel(scratch('kdump-cut'));
    assert.match(kernel.warnings.join(), /^truncated: the file ends before its last page/);
    const [first] = elf.physical.ranges;
    assert.equal(kernel.physical.view(first?.physical ?? 0, 8).length, 8);
    // Pages of zeros are stored once, wherever the first of them is.
    const pages = elf.physical.ranges.flatMap(({ physical, length }) =>
      Array.from({ length: length / 4096 }, (_, i) => physical + i * 4096),
    );
    const missing = pages.findLast((page) => elf.physical.view(page, 4096).some((byte) => byte !== 0));
    assert.throws(
      () => kernel.physical.view(missing ?? 0, 8),
      /is missing from an incomplete or damaged dump/,
    );
  });

  it('says that it is cut off where the last pages are those of zeros, which are stored once', () => {
    for (const zeroPagesAtEnd of [1, 20_000]) {
      const whole = readFileSync(dump('zlib', { zeroPagesAtEnd }));
      assert.deepEqual(openKernel(dump('zlib', { zeroPagesAtEnd })).warnings, []);
      writeFileSync(scratch('kdump-cut'), whole.subarray(0, Math.floor(whole.length * 0.99)));
      assert.match(openKernel(scratch('kdump-cut')).warnings.join(), /^truncated: the file ends/);
    }
  });

  it('says that it is cut off where a flattened file has no end mark', () => {
    const flat = flatten(readFileSync(dump('zlib')));
    writeFileSync(scratch('kdump-flat'), flat);
    assert.deepEqual(openKernel(scratch('kdump-flat')).warnings, []);
    writeFileSync(scratch('kdump-flat'), flat.subarray(0, -16));
    assert.match(openKernel(scratch('kdump-flat')).warnings.join(), /^truncated: /);
  });

  it('has every page in its place although a bit of the bitmap is wrong, or is refused', () => {
    const path = dump('zlib');
    const whole = readFileSync(path);
    const bitmapBytes = (whole.readUInt32LE(436) * 4096) / 2;
    const [first] = elf.physical.ranges;
    const frame = (first?.physical ?? 0) / 4096;
    for (const bit of [frame, frame + 1, 0]) {
      const flipped = Buffer.from(whole);
      const at = 2 * 4096 + bitmapBytes + (bit >> 3);
      flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << (bit & 7)), at);
      writeFileSync(scratch('kdump-bit'), flipped);
      const kernel = openKernel(scratch('kdump-bit'));
      assert.match(
        kernel.warnings.join(),
        /^damaged: its bitmap counts \d+ pages, and it has \d+; the bitmap of all/,
      );
      sameMemory(kernel);
      kernel.close();
    }
    const last = elf.physical.ranges.at(-1);
    const leavesOut = (one: number) => one === (last?.physical ?? 0) / 4096;
    const filtered = readFileSync(dump('zlib', { dumpLevel: 31, leavesOut }));
    assert.deepEqual(openKernel(dump('zlib', { dumpLevel: 31, leavesOut })).warnings, []);
    const at = 2 * 4096 + bitmapBytes + (frame >> 3);
    filtered.writeUInt8(filtered.readUInt8(at) ^ (1 << (frame & 7)), at);
    writeFileSync(scratch('kdump-bit'), filtered);
    assert.throws(
      () => openKernel(scratch('kdump-bit')),
      /its bitmap counts \d+ pages, and it has \d+: which/,
    );
  });

  it('loses what is on a page that cannot be decompressed, and nothing else', () => {
    const path = dump('zlib');
    const whole = openKernel(path);
    const lost = whole.memory.translate(findTaskByPid(whole, 1) ?? 0n);
    const bytes = readFileSync(path);
    const rank = elf.physical.ranges.reduce(
      (sum, { physical, length }) => sum + Math.max(0, Math.min(length, lost - physical)) / 4096,
      0,
    );
    const bitmaps = bytes.readUInt32LE(436) * 4096;
    const at = Number(bytes.readBigUInt64LE(2 * 4096 + bitmaps + Math.floor(rank) * 24));
    bytes.fill(0x55, at, at + 60);
    writeFileSync(scratch('kdump-page'), bytes);
    const kernel = openKernel(scratch('kdump-page'));
    const { rows, unreadable } = listProcesses(kernel);
    const all = listProcesses(elf).rows;
    assert.ok(rows.length > all.length / 2);
    assert.ok(rows.length + unreadable.length >= all.length);
    assert.match(
      unreadable.map(({ problem }) => problem).join('\n'),
      /cannot be read \(physical\): a page of the dump/,
    );
    for (const row of rows.filter(({ problem }) => problem === undefined)) {
      assert.deepEqual(
        row,
        all.find(({ pid }) => pid === row.pid),
      );
    }
  });

  it('is refused if it is one of several parts or has other pages', () => {
    assert.throws(() => openKernel(dump('zlib', { split: true })), /--reassemble/);
    assert.throws(() => openKernel(dump('zlib', { blockSize: 65536 })), /blocks of 65536 bytes/);
  });

  it('is refused or read if it is damaged, with an error that says so', () => {
    const whole = readFileSync(dump('zstd'));
    const area = 3 * 4096 + 40_000;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(area), fc.nat(255)), { minLength: 1, maxLength: 12 }),
        fc.nat(whole.length),
        (changes, length) => {
          const copy = Buffer.from(whole.subarray(0, Math.max(length, area + 1)));
          for (const [at, value] of changes) copy[at] = value;
          writeFileSync(scratch('kdump-damaged'), copy);
          try {
            const kernel = openKernel(scratch('kdump-damaged'));
            listProcesses(kernel);
            kernel.close();
          } catch (error) {
            if (!(error instanceof VmcoreError)) throw error;
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('is refused if it is cut off before its pages', () => {
    const whole = readFileSync(dump('zlib'));
    for (const length of [8, 464, 4096, 5000, 8192, 9000]) {
      writeFileSync(scratch('kdump-short'), whole.subarray(0, length));
      assert.throws(() => openKernel(scratch('kdump-short')), FormatError);
    }
  });
});

describe('a compressed page', () => {
  // The first page of a machine (real-mode interrupt vectors), as makedumpfile 1.7.2 -l wrote it.
  const lzo = Buffer.from(
    'CVP/APBT/wDww+IA8O4BVP8oLAAHpf4A8IfpAPBE1CwOAFfvvAEAGKHSAPBN+ADwQfgA8P7jAPA55wDwWfgA8C7oAPDS7wDw' +
      'adQA8PLmAPBu/ihMAXwMBRxgAPDAlQDAbAEgWw4AWewoXgLAcyBRPQIAOQAAIANcBAIp1ADwTSkMAAYy1ADwO9QA8CDMAmwI' +
      'aAx8ACAA9AwAB/gD+ALoAwAAeAN0RATAnydGAH8CaAEBAB4AHpwAIAYQAAUDUAAAEAAAAJwIKMwAAQcGANTqAuGZYAQABwAA' +
      'AQDAABQAAAAKCgoAHgA+ABgQAGD5UQhxBgdwAKAJpAH0AAEgaADA7AGcAAJAAwDGaIQBIAAAAAAAAAAAAAAAFhAADgAAAAAA' +
      'AAAAAAAAAAAAAAAAEQAA',
    'base64',
  );

  it('is what the compressor was given', () => {
    const page = decompressPage(lzo, PAGE_FLAGS.lzo, 4096);
    const digest = createHash('sha256').update(page).digest('hex');
    assert.equal(digest, '038bc9f393f9d5660ca0ef065af878b1e20495b72a3a41bef63def4f8e460941');
  });

  it('never makes more than a page, and never anything but a VmcoreError', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 600 }),
        fc.constantFrom(0, 1, 2, 4, 0x20, 7, 0x40),
        (input, flags) => {
          assert.throws(() => decompressPage(input, flags, 4096), VmcoreError);
        },
      ),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(lzo.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 }),
        (changes) => {
          const copy = Buffer.from(lzo);
          for (const [at, value] of changes) copy[at] = value;
          try {
            assert.ok(lzoDecompress(copy, new Uint8Array(4096)) <= 4096);
          } catch (error) {
            if (!(error instanceof VmcoreError)) throw error;
          }
        },
      ),
    );
  });
});
