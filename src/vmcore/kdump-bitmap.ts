import { PAGE_SIZE } from '../system/page.ts';
import type { DumpContent } from './content.ts';
import { decompressPage } from './decompress.ts';
import { readable } from './errors.ts';

/** `struct page_desc`: offset, size, flags, page flags. */
export const DESCRIPTOR_BYTES = 24;
/** Descriptors, from the first one on, in which the place of the first page is looked for. */
const FIRST_DESCRIPTORS = 16_384;

/** Where a page is in the file, and how it was compressed. */
export interface PageDescriptor {
  readonly offset: number;
  readonly size: number;
  readonly flags: number;
}

export function readDescriptor(view: DataView, at: number): PageDescriptor {
  const offset = view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
  return { offset, size: view.getUint32(at + 8, true), flags: view.getUint32(at + 12, true) };
}

function popcount(byte: number): number {
  let value = byte - ((byte >> 1) & 0x55);
  value = (value & 0x33) + ((value >> 2) & 0x33);
  return (value + (value >> 4)) & 0x0f;
}

/** How many bits are set in each byte. */
export const ONES = Uint8Array.from({ length: 256 }, (_, byte) => popcount(byte));

/** Set bits of the first `frames` of a bitmap, rounded up to whole bytes. */
export function countFrames(bitmap: Buffer, frames: number): number {
  let count = 0;
  for (const byte of bitmap.subarray(0, Math.ceil(frames / 8))) count += ONES[byte]!;
  return count;
}

/** Both bitmaps of a file: one bit for each page frame. */
export interface Bitmaps {
  readonly content: DumpContent;
  /** Is memory. */
  readonly existing: Buffer;
  /** Is in the file. */
  readonly dumped: Buffer;
  readonly frames: number;
  /** Where the page descriptors start: one for each set bit of `dumped`. */
  readonly descriptorsAt: number;
}

function isZeroPage({ content }: Bitmaps, at: number, { flags }: PageDescriptor, size: number): boolean {
  const data = size > 0 && size <= PAGE_SIZE ? content.bytes(at, size) : undefined;
  if (data === undefined) return false;
  const page = readable(() => decompressPage(data, size === PAGE_SIZE ? 0 : flags, PAGE_SIZE));
  return page?.every((byte) => byte === 0) ?? false;
}

/**
 * How many descriptors the file has: the first page follows the last of them. That is often the page of
 * zeros, which QEMU, and makedumpfile if it leaves zeros out, write even if no descriptor needs it. Undefined
 * if no page is found where `counted` descriptors would end, or anywhere behind.
 */
function descriptorCount(bitmaps: Bitmaps, counted: number): number | undefined {
  const { content, descriptorsAt } = bitmaps;
  const raw = content.bytes(descriptorsAt, Math.min(counted, FIRST_DESCRIPTORS) * DESCRIPTOR_BYTES);
  if (raw === undefined) return undefined;
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  let first: PageDescriptor | undefined;
  for (let at = 0; at < raw.length; at += DESCRIPTOR_BYTES) {
    const descriptor = readDescriptor(view, at);
    if (descriptor.offset !== 0 && descriptor.offset < (first?.offset ?? Number.POSITIVE_INFINITY))
      first = descriptor;
  }
  if (first === undefined) return undefined;
  const start = descriptorsAt + counted * DESCRIPTOR_BYTES;
  const between = first.offset - start;
  if (between === 0 || isZeroPage(bitmaps, start, first, between)) return counted;
  const found = (first.offset - descriptorsAt) / DESCRIPTOR_BYTES;
  return Number.isInteger(found) ? found : undefined;
}

/** What a file's bitmap says of its pages, compared with how many there are. */
export interface CheckedBitmap {
  readonly dumped: Buffer;
  /** What is wrong with the bitmap although the pages can be found. */
  readonly warning?: string;
  /** What is wrong with it so that none can be. */
  readonly problem?: string;
}

/**
 * One wrong bit moves every page behind it to another's place. So the bitmap has to have as many set bits as
 * the file has descriptors; if not, the bitmap of what is memory stands in for it, where that has as many
 * (nothing was filtered out).
 *
 * @param isIncomplete the file says that its writer ran out of room. makedumpfile has room for all
 * descriptors from the start, but writes the bitmap in cycles, each before its pages: what it got to is
 * right, and the rest of the bitmap is empty.
 */
export function checkBitmap(bitmaps: Bitmaps, isIncomplete: boolean): CheckedBitmap {
  const { existing, dumped, frames } = bitmaps;
  const counted = countFrames(dumped, frames);
  const descriptors = counted === 0 ? 0 : descriptorCount(bitmaps, counted);
  if (descriptors === counted || descriptors === undefined) return { dumped };
  if (isIncomplete && counted < descriptors) return { dumped };
  if (countFrames(existing, frames) === descriptors) {
    return {
      dumped: existing,
      warning: `damaged: its bitmap counts ${counted} pages, and it has ${descriptors}; the bitmap of all memory is used instead`,
    };
  }
  return {
    dumped,
    problem: `damaged: its bitmap counts ${counted} pages, and it has ${descriptors}: which is which cannot be told`,
  };
}
