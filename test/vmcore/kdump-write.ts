import { deflateSync, zstdCompressSync } from 'node:zlib';
import { compressSync } from 'snappy';
import { PAGE_FLAGS } from '../../src/vmcore/decompress.ts';
import type { PhysicalMemory } from '../../src/vmcore/physical.ts';

const PAGE = 4096;

export type Compression = keyof typeof compressions;

/** LZO1X without any matches: one run of literals, and the end of the stream. */
function lzoLiterals(page: Uint8Array): Buffer {
  const rest = page.length - 18;
  const zeroes = Math.floor((rest - 1) / 255);
  const count = Buffer.from([0, ...new Array<number>(zeroes).fill(0), rest - zeroes * 255]);
  return Buffer.concat([count, page, Buffer.from([0x11, 0, 0])]);
}

const compressions = {
  none: (page: Uint8Array) => Buffer.from(page),
  zlib: (page: Uint8Array) => deflateSync(page),
  lzo: lzoLiterals,
  snappy: (page: Uint8Array) => compressSync(Buffer.from(page)),
  zstd: (page: Uint8Array) => zstdCompressSync(page),
};

const FLAGS: Readonly<Record<Compression, number>> = {
  none: 0,
  zlib: 1,
  lzo: 2,
  snappy: 4,
  zstd: PAGE_FLAGS.zstd,
};

/** What can be wrong with the file that is written. */
export interface KdumpFaults {
  readonly incomplete?: boolean;
  readonly split?: boolean;
  readonly blockSize?: number;
}

/**
 * Writes memory as a kdump-compressed file of header version 6 (makedumpfile's diskdump_mod.h). A page that does not become
 * smaller is stored as it is, as makedumpfile does, but for LZO, whose encoder here never makes it smaller.
 */
export function writeKdump(
  memory: PhysicalMemory,
  vmcoreinfo: string,
  compression: Compression,
  faults: KdumpFaults = {},
): Buffer {
  const last = memory.ranges.at(-1);
  const frames = ((last?.physical ?? 0) + (last?.length ?? 0)) / PAGE;
  const bitmapBlocks = Math.ceil(frames / 8 / PAGE);
  const bitmap = Buffer.alloc(bitmapBlocks * PAGE);
  const pages: { data: Buffer; flags: number }[] = [];
  for (let frame = 0; frame < frames; frame++) {
    if (!memory.has(frame * PAGE, PAGE)) continue;
    bitmap.writeUInt8(bitmap.readUInt8(frame >> 3) | (1 << (frame & 7)), frame >> 3);
    const page = memory.view(frame * PAGE, PAGE);
    const data = compressions[compression](page);
    const smaller = data.length < PAGE;
    pages.push(smaller ? { data, flags: FLAGS[compression] } : { data: Buffer.from(page), flags: 0 });
  }
  const info = Buffer.from(vmcoreinfo, 'latin1');
  const header = Buffer.alloc(PAGE);
  header.write('KDUMP   ', 'latin1');
  header.writeInt32LE(6, 8);
  header.writeUInt32LE(faults.incomplete === true ? 8 : 0, 424);
  header.writeInt32LE(faults.blockSize ?? PAGE, 428);
  header.writeInt32LE(1, 432);
  header.writeUInt32LE(bitmapBlocks * 2, 436);
  const subHeader = Buffer.alloc(PAGE);
  subHeader.writeInt32LE(faults.split === true ? 1 : 0, 12);
  subHeader.writeBigUInt64LE(BigInt(PAGE + 512), 32);
  subHeader.writeBigUInt64LE(BigInt(info.length), 40);
  subHeader.writeBigUInt64LE(BigInt(frames), 96);
  info.copy(subHeader, 512);
  const descriptors = Buffer.alloc(pages.length * 24);
  let at = (2 + bitmapBlocks * 2) * PAGE + descriptors.length;
  pages.forEach(({ data, flags }, i) => {
    descriptors.writeBigUInt64LE(
      BigInt(faults.incomplete === true && i > pages.length - 10 ? 0 : at),
      i * 24,
    );
    descriptors.writeUInt32LE(data.length, i * 24 + 8);
    descriptors.writeUInt32LE(flags, i * 24 + 12);
    at += data.length;
  });
  return Buffer.concat([header, subHeader, bitmap, bitmap, descriptors, ...pages.map(({ data }) => data)]);
}
