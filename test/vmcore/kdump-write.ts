import { deflateSync, zstdCompressSync } from 'node:zlib';
import { compressSync } from 'snappy';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { PAGE_FLAGS } from '../../src/vmcore/decompress.ts';
import type { PhysicalMemory } from '../../src/vmcore/physical.ts';

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
  /**
   * The frame where its second cycle would have begun: there was no room any more, and its bitmap was not
   * written.
   */
  readonly secondCycle?: number;
  readonly split?: boolean;
  readonly blockSize?: number;
  /** So many pages of zeros follow the last page. */
  readonly zeroPagesAtEnd?: number;
  /** What `makedumpfile -d` was given. */
  readonly dumpLevel?: number;
  /** Which pages that made it leave out. */
  readonly leavesOut?: ((frame: number) => boolean) | undefined;
}

interface StoredPage {
  readonly data: Buffer;
  readonly flags: number;
}

const ZEROES = Buffer.alloc(PAGE_SIZE);

/** A page that does not become smaller is stored as it is. */
function storedPage(page: Uint8Array, compression: Compression): StoredPage {
  const data = compressions[compression](page);
  return data.length < PAGE_SIZE
    ? { data, flags: FLAGS[compression] }
    : { data: Buffer.from(page), flags: 0 };
}

/** What pages of a memory are stored as, by compression and frame: one memory is written many times. */
const storedPages = new WeakMap<PhysicalMemory, Map<string, StoredPage>>();

/** The stored page of a frame. `zeroes` stands for all pages of zeros. */
function storedFrame(
  memory: PhysicalMemory,
  frame: number,
  compression: Compression,
  zeroes: StoredPage,
): StoredPage {
  const page = memory.view(frame * PAGE_SIZE, PAGE_SIZE);
  if (ZEROES.equals(page)) return zeroes;
  const known = storedPages.get(memory) ?? new Map<string, StoredPage>();
  storedPages.set(memory, known);
  const key = `${compression} ${frame}`;
  const stored = known.get(key) ?? storedPage(page, compression);
  known.set(key, stored);
  return stored;
}

function setBit(bitmap: Buffer, frame: number): void {
  bitmap.writeUInt8(bitmap.readUInt8(frame >> 3) | (1 << (frame & 7)), frame >> 3);
}

/** The frames that a memory has, and those behind it up to an end. */
function* framesOf(memory: PhysicalMemory, end: number): Generator<number> {
  let next = 0;
  for (const { physical, length } of memory.ranges) {
    const last = Math.floor((physical + length) / PAGE_SIZE);
    for (next = Math.max(next, Math.ceil(physical / PAGE_SIZE)); next < last; next++) yield next;
  }
  for (; next < end; next++) yield next;
}

/** Writes memory as a kdump-compressed file of header version 6 (makedumpfile's diskdump_mod.h). */
export function writeKdump(
  memory: PhysicalMemory,
  vmcoreinfo: string,
  compression: Compression,
  faults: KdumpFaults = {},
): Buffer {
  const last = memory.ranges.at(-1);
  const held = ((last?.physical ?? 0) + (last?.length ?? 0)) / PAGE_SIZE;
  const frames = held + (faults.zeroPagesAtEnd ?? 0);
  const bitmapBlocks = Math.ceil(frames / 8 / PAGE_SIZE);
  const existing = Buffer.alloc(bitmapBlocks * PAGE_SIZE);
  const dumped = Buffer.alloc(bitmapBlocks * PAGE_SIZE);
  const pages: StoredPage[] = [];
  const cycles = { unwritten: 0 };
  // makedumpfile and QEMU write a page of zeros once, before the others.
  const zeroes = storedPage(ZEROES, compression);
  for (const frame of framesOf(memory, frames)) {
    setBit(existing, frame);
    if (faults.leavesOut?.(frame) === true) continue;
    if (frame < (faults.secondCycle ?? frames)) setBit(dumped, frame);
    else cycles.unwritten++;
    pages.push(frame < held ? storedFrame(memory, frame, compression, zeroes) : zeroes);
  }
  const info = Buffer.from(vmcoreinfo, 'latin1');
  const header = Buffer.alloc(PAGE_SIZE);
  header.write('KDUMP   ', 'latin1');
  header.writeInt32LE(6, 8);
  header.writeUInt32LE(faults.incomplete === true ? 8 : 0, 424);
  header.writeInt32LE(faults.blockSize ?? PAGE_SIZE, 428);
  header.writeInt32LE(1, 432);
  header.writeUInt32LE(bitmapBlocks * 2, 436);
  const subHeader = Buffer.alloc(PAGE_SIZE);
  subHeader.writeInt32LE(faults.dumpLevel ?? 0, 8);
  subHeader.writeInt32LE(faults.split === true ? 1 : 0, 12);
  subHeader.writeBigUInt64LE(BigInt(PAGE_SIZE + 512), 32);
  subHeader.writeBigUInt64LE(BigInt(info.length), 40);
  subHeader.writeBigUInt64LE(BigInt(frames), 96);
  info.copy(subHeader, 512);
  const descriptors = Buffer.alloc(pages.length * 24);
  const start = (2 + bitmapBlocks * 2) * PAGE_SIZE + descriptors.length;
  let at = start + zeroes.data.length;
  const lost = faults.incomplete === true ? 9 + cycles.unwritten : 0;
  pages.forEach((page, i) => {
    const isZero = page === zeroes;
    const offset = i >= pages.length - lost ? 0 : isZero ? start : at;
    descriptors.writeBigUInt64LE(BigInt(offset), i * 24);
    descriptors.writeUInt32LE(page.data.length, i * 24 + 8);
    descriptors.writeUInt32LE(page.flags, i * 24 + 12);
    if (!isZero) at += page.data.length;
  });
  const data = [zeroes, ...pages.filter((page) => page !== zeroes)].map((page) => page.data);
  return Buffer.concat([header, subHeader, existing, dumped, descriptors, ...data]);
}
