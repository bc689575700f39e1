import { createRequire } from 'node:module';
import { inflateSync, zstdDecompressSync } from 'node:zlib';
import { messageOf } from '../system/thrown.ts';
import { VmcoreError } from './errors.ts';
import { lzoDecompress } from './lzo.ts';

/** Compression of one page (`page_desc.flags` of makedumpfile's diskdump_mod.h). */
export const PAGE_FLAGS = { zlib: 1, lzo: 2, snappy: 4, incomplete: 8, zstd: 0x20 } as const;

type Snappy = typeof import('snappy');
let snappy: Snappy | undefined;

/** Loaded when the first such page is met: the module is native, and most dumps do not need it. */
function loadSnappy(): Snappy {
  snappy ??= createRequire(import.meta.url)('snappy') as Snappy;
  return snappy;
}

/** The uncompressed length with which a snappy block starts: seven bits a byte, lowest first. */
function snappyLength(input: Uint8Array): number {
  let length = 0;
  for (let i = 0; i < 5; i++) {
    const byte = input[i] ?? 0;
    length += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return length;
  }
  return Number.POSITIVE_INFINITY;
}

function decompress(input: Uint8Array, flags: number, bytes: number): Uint8Array {
  switch (flags & (PAGE_FLAGS.zlib | PAGE_FLAGS.lzo | PAGE_FLAGS.snappy | PAGE_FLAGS.zstd)) {
    case 0:
      return Uint8Array.from(input);
    case PAGE_FLAGS.zlib:
      return inflateSync(input, { maxOutputLength: bytes });
    case PAGE_FLAGS.zstd:
      return zstdDecompressSync(input, { maxOutputLength: bytes });
    case PAGE_FLAGS.snappy: {
      // The library allocates what the block says; a damaged one may say 4 GiB.
      if (snappyLength(input) !== bytes) throw new VmcoreError('its length is wrong');
      const output = loadSnappy().uncompressSync(Buffer.from(input), { asBuffer: true });
      return typeof output === 'string' ? Buffer.from(output) : output;
    }
    case PAGE_FLAGS.lzo: {
      const output = new Uint8Array(bytes);
      return output.subarray(0, lzoDecompress(input, output));
    }
    default:
      throw new VmcoreError(`its compression (flags ${flags}) is not known`);
  }
}

/** One page of a kdump-compressed file. Throws a VmcoreError if it does not become exactly `bytes` bytes. */
export function decompressPage(input: Uint8Array, flags: number, bytes: number): Uint8Array {
  let page: Uint8Array;
  try {
    page = decompress(input, flags, bytes);
  } catch (error) {
    throw new VmcoreError(`a page of the dump is damaged: ${messageOf(error)}`);
  }
  if (page.length !== bytes)
    throw new VmcoreError(`a page of the dump is damaged: it has ${page.length} bytes`);
  return page;
}
