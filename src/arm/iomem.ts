import { crashReservations } from '../kexec/index.ts';
import type { Range } from '../system/range.ts';
import { ArmError } from './errors.ts';

/** An entry of /proc/iomem; `depth` is 0 for an entry at the left margin. */
export interface IomemEntry extends Range {
  readonly name: string;
  readonly depth: number;
}

/**
 * Memory blocks that can be put online one by one are at least this large on x86-64 (MIN_MEMORY_BLOCK_SIZE).
 */
const MEMORY_BLOCK_BYTES = 128 * 2 ** 20;
/**
 * What a device-dax keeps for itself at the start of its range (info block, aligned to a huge page); its
 * memory begins after it.
 */
const DAX_LABEL_BYTES = 2 * 2 ** 20;

/**
 * Reads the text of /proc/iomem.
 * @throws ArmError if the addresses are hidden, as they are for everybody but root
 */
export function parseIomem(text: string): IomemEntry[] {
  const entries = [...text.matchAll(/^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$/gm)].map(
    ([, indent = '', start = '', last = '', name = '']) => ({
      start: Number.parseInt(start, 16),
      end: Number.parseInt(last, 16) + 1,
      name,
      depth: indent.length / 2,
    }),
  );
  if (!entries.some((entry) => entry.name === 'System RAM' && entry.end > 1)) {
    throw new ArmError('/proc/iomem shows no addresses; run this as root');
  }
  return entries;
}

/**
 * The parts of System RAM that the crash world can take back: whole memory blocks outside the reserved
 * memory, each part with room for its device-dax's label before the first block. Large ranges are cut so that
 * the page descriptors of each part (1.6 % of it) fit into what the parts before it have brought. One memory
 * block is left out at each cut: the kernel would join ranges that touch (e820__update_table).
 * @param reservedBytes memory that the crash kernel starts with
 */
export function reclaimableRanges(entries: readonly IomemEntry[], reservedBytes: number): Range[] {
  const reserved = crashReservations(entries);
  const whole = entries
    .filter((entry) => entry.name === 'System RAM' && entry.depth === 0)
    .flatMap((ram) => reserved.reduce(subtract, [{ start: ram.start, end: ram.end }]))
    .map(({ start, end }) => ({
      start: Math.ceil((start + DAX_LABEL_BYTES) / MEMORY_BLOCK_BYTES) * MEMORY_BLOCK_BYTES,
      end: Math.floor(end / MEMORY_BLOCK_BYTES) * MEMORY_BLOCK_BYTES,
    }))
    .filter(({ start, end }) => start < end);
  return cutToGrow(whole, reservedBytes);
}

function subtract(ranges: Range[], hole: Range): Range[] {
  return ranges.flatMap(({ start, end }) =>
    [
      { start, end: Math.min(end, hole.start) },
      { start: Math.max(start, hole.end), end },
    ].filter((part) => part.start < part.end),
  );
}

/** Eight times what is there already costs 13 % of it in page descriptors. */
const GROWTH = 8;

function cutToGrow(ranges: readonly Range[], reservedBytes: number): Range[] {
  const parts: Range[] = [];
  let present = reservedBytes;
  for (const range of ranges) {
    let start = range.start;
    while (start < range.end) {
      const limit = Math.max(1, Math.floor((present * GROWTH) / MEMORY_BLOCK_BYTES)) * MEMORY_BLOCK_BYTES;
      const end = Math.min(range.end, start + limit);
      parts.push({ start: start - DAX_LABEL_BYTES, end });
      present += end - start;
      start = end + MEMORY_BLOCK_BYTES;
    }
  }
  return parts;
}

/** Bytes of memory that a range of reclaimableRanges brings. */
export function blockBytes({ start, end }: Range): number {
  return end - start - DAX_LABEL_BYTES;
}

/** `memmap=SIZE!START`: the crash kernel sees the range as persistent memory (kernel-parameters.txt). */
export function memmapParameter(range: Range): string {
  const mebibytes = (bytes: number): string => `${bytes / 2 ** 20}M`;
  return `memmap=${mebibytes(range.end - range.start)}!${mebibytes(range.start)}`;
}
