import { FormatError } from './errors.ts';
import { mapFile, type VmcoreFile } from './mapping.ts';

/** The bytes of a dump file by their place in it, mapped. */
export interface DumpContent {
  readonly path: string;
  /** The file ends where more should follow: a flattened file without its end mark. */
  readonly isCut: boolean;
  /**
   * Bytes from `offset` on, not copied if they lie together; undefined if the file does not hold them all.
   */
  bytes(offset: number, length: number): Uint8Array | undefined;
  unmap(): void;
}

/** Bytes that must be there; throws a FormatError that says what they were to be. */
export function requireBytes(content: DumpContent, offset: number, length: number, what: string): Buffer {
  const bytes = content.bytes(offset, length);
  if (bytes === undefined) {
    throw new FormatError(content.path, `truncated: ${what} needs bytes ${offset} to ${offset + length}`);
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A file as it is. */
export function plainContent(file: VmcoreFile): DumpContent {
  const { data, unmap } = mapFile(file.path, file.fd, 0, file.sizeBytes);
  const isWithin = (offset: number, length: number): boolean =>
    offset >= 0 && length >= 0 && offset + length <= file.sizeBytes;
  return {
    path: file.path,
    isCut: false,
    bytes: (offset, length) =>
      isWithin(offset, length) ? new Uint8Array(data.buffer, data.byteOffset + offset, length) : undefined,
    unmap,
  };
}

/** Header of a flattened file; what follows are blocks, each with its place and its length. */
const FLATTENED_HEADER = 4096;
const BLOCK_HEADER = 16;
const END_MARK = -1n;
/** More blocks, or blocks that overlap others, than a real file has. */
const MAX_BLOCKS = 1 << 24;
const MAX_OVERLAPS = 10_000;

/** Where a range of the dump is in the flattened file. */
interface Block {
  readonly start: number;
  readonly end: number;
  readonly at: number;
}

/**
 * Whether a file begins as `makedumpfile -F` and QEMU's kdump formats without `raw` do: written for a pipe.
 */
export function isFlattened(magic: Buffer): boolean {
  return magic.toString('latin1', 0, 13) === 'makedumpfile\0';
}

/** Ranges in ascending order, without overlaps: what was written later is what counts. */
class Blocks {
  readonly #blocks: Block[] = [];
  #overlaps = 0;

  /** Returns whether the block was taken: not if there are too many overlaps to be true. */
  add(block: Block): boolean {
    const blocks = this.#blocks;
    const index = this.indexAfter(block.start);
    let last = index;
    while ((blocks[last]?.start ?? block.end) < block.end) last++;
    const overlapped = blocks.slice(index, last);
    if (overlapped.length > 0 && ++this.#overlaps > MAX_OVERLAPS) return false;
    const rest = overlapped.flatMap((old) => [
      ...(old.start < block.start ? [{ ...old, end: block.start }] : []),
      ...(old.end > block.end
        ? [{ start: block.end, end: old.end, at: old.at + (block.end - old.start) }]
        : []),
    ]);
    if (index === blocks.length) blocks.push(block);
    else blocks.splice(index, overlapped.length, ...[...rest, block].sort((a, b) => a.start - b.start));
    return true;
  }

  get(index: number): Block | undefined {
    return this.#blocks[index];
  }

  /** Index of the first block that ends behind `offset`. */
  indexAfter(offset: number): number {
    let low = 0;
    let high = this.#blocks.length;
    // Blocks come in order, nearly all of them.
    if ((this.#blocks[high - 1]?.end ?? 0) <= offset) return high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#blocks[middle]?.end ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function readBlocks(file: VmcoreFile, data: DataView): { blocks: Blocks; isCut: boolean } {
  const blocks = new Blocks();
  let at = FLATTENED_HEADER;
  for (let count = 0; at + BLOCK_HEADER <= file.sizeBytes; count++) {
    const start = data.getBigInt64(at);
    const length = data.getBigInt64(at + 8);
    if (start === END_MARK) return { blocks, isCut: false };
    at += BLOCK_HEADER;
    const isSane =
      start >= 0n && start < 1n << 52n && length > 0n && length < 1n << 52n && count < MAX_BLOCKS;
    if (!isSane)
      throw new FormatError(
        file.path,
        `damaged: the block at byte ${at - BLOCK_HEADER} of the flattened file`,
      );
    const end = Number(start) + Math.min(Number(length), file.sizeBytes - at);
    if (!blocks.add({ start: Number(start), end, at })) {
      throw new FormatError(file.path, 'damaged: the blocks of the flattened file overlap each other');
    }
    at += Number(length);
  }
  return { blocks, isCut: true };
}

/**
 * A file that was written for a pipe: blocks with their places, in any order. Throws a FormatError if it is
 * damaged.
 */
export function flattenedContent(file: VmcoreFile): DumpContent {
  const { data, unmap } = mapFile(file.path, file.fd, 0, file.sizeBytes);
  const { blocks, isCut } = readBlocks(file, data);
  const view = (at: number, length: number): Uint8Array =>
    new Uint8Array(data.buffer, data.byteOffset + at, length);
  return {
    path: file.path,
    isCut,
    unmap,
    bytes: (offset, length) => {
      let index = blocks.indexAfter(offset);
      const first = blocks.get(index);
      if (first === undefined || first.start > offset || length < 0) return undefined;
      if (offset + length <= first.end) return view(first.at + (offset - first.start), length);
      const parts: Uint8Array[] = [];
      for (let done = 0; done < length; index++) {
        const block = blocks.get(index);
        if (block === undefined || block.start > offset + done) return undefined;
        const part = Math.min(length - done, block.end - (offset + done));
        parts.push(view(block.at + (offset + done - block.start), part));
        done += part;
      }
      return Buffer.concat(parts);
    },
  };
}
