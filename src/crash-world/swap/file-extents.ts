import type { SwapExtent } from '../../linux/readers/swap-areas.ts';
import { ioctlMemory } from '../../system/descriptors.ts';
import { PAGE_SIZE } from '../../system/page.ts';

/** FS_IOC_FIEMAP (include/uapi/linux/fs.h), and the structures of linux/fiemap.h. */
const FS_IOC_FIEMAP = 0xc020_660b;
const HEAD_BYTES = 32;
const EXTENT_BYTES = 56;
const EXTENTS = 256;
const LAST = 1;
/** Unknown, not allocated yet, encoded, not aligned, inline. */
const NOT_A_PLACE = 0x2 | 0x4 | 0x8 | 0x100 | 0x200;

/** Bytes of a file that lie in a row on its device. */
export interface DiskRange {
  readonly start: number;
  readonly end: number;
}

/** Where a file lies on its device, by its file system; undefined if that does not tell. */
export function fileRanges(fd: number): DiskRange[] | undefined {
  const ranges: DiskRange[] = [];
  for (let from = 0n; ; ) {
    const map = Buffer.alloc(HEAD_BYTES + EXTENTS * EXTENT_BYTES);
    map.writeBigUInt64LE(from, 0);
    map.writeBigUInt64LE(0xffff_ffff_ffff_ffffn - from, 8);
    map.writeUInt32LE(EXTENTS, 24);
    if (ioctlMemory(fd, FS_IOC_FIEMAP, map) !== 0) return undefined;
    const count = map.readUInt32LE(20);
    for (let i = 0; i < count; i++) {
      const at = HEAD_BYTES + i * EXTENT_BYTES;
      const [logical, start, length] = [0, 8, 16].map((field) => map.readBigUInt64LE(at + field));
      const flags = map.readUInt32LE(at + 40);
      if ((flags & NOT_A_PLACE) === 0) ranges.push({ start: Number(start), end: Number(start! + length!) });
      if ((flags & LAST) !== 0) return ranges;
      from = logical! + length!;
    }
    if (count === 0) return ranges;
  }
}

/** Whether a file has all places that the dead kernel swapped to: then nothing else has been given them. */
export function hasExtents(ranges: readonly DiskRange[], extents: readonly SwapExtent[]): boolean {
  const sorted = ranges.toSorted((a, b) => a.start - b.start);
  const joined: { start: number; end: number }[] = [];
  for (const { start, end } of sorted) {
    const last = joined.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else joined.push({ start, end });
  }
  let at = 0;
  return extents
    .toSorted((a, b) => a.block - b.block)
    .every(({ block, slots }) => {
      const [start, end] = [block * PAGE_SIZE, (block + slots) * PAGE_SIZE];
      while (at < joined.length && joined[at]!.end < end) at++;
      return at < joined.length && joined[at]!.start <= start;
    });
}
