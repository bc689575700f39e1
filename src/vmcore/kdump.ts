import { architectureOfUname, architectures } from '../arch/index.ts';
import { parseNotes } from '../system/elf.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { type DumpContent, requireBytes } from './content.ts';
import type { DumpSource } from './elf.ts';
import { cpuNotesOf } from './elf-notes.ts';
import { FormatError } from './errors.ts';
import { checkBitmap } from './kdump-bitmap.ts';
import { CompressedMemory } from './kdump-memory.ts';

/** Offsets in makedumpfile's `struct disk_dump_header` (diskdump_mod.h) on 64-bit machines. */
const HEADER = {
  version: 8,
  /** `utsname.machine`: the fifth text of 65 bytes. */
  machine: 272,
  status: 424,
  blockSize: 428,
  subHeaderBlocks: 432,
  bitmapBlocks: 436,
  maxMapnr: 440,
  bytes: 464,
} as const;
/** Offsets in `struct kdump_sub_header`, and the header version that introduced each. */
const SUB_HEADER = { dumpLevel: 8, split: 12, vmcoreinfo: 32, note: 48, maxMapnr64: 96, bytes: 104 } as const;
const VERSION_VMCOREINFO = 3;
const VERSION_NOTE = 4;
const VERSION_64_BIT = 6;
const UTS_LENGTH = 65;
/** makedumpfile ran out of room (DUMP_DH_COMPRESSED_INCOMPLETE). */
const STATUS_INCOMPLETE = 8;
const MAX_VMCOREINFO_BYTES = 1 << 20;
const MAX_NOTE_BYTES = 64 << 20;

/** Whether a file begins as kdump-compressed files do (makedumpfile, QEMU's kdump formats). */
export function isKdump(magic: Buffer): boolean {
  return magic.toString('latin1', 0, 8) === 'KDUMP   ';
}

function readPart(
  content: DumpContent,
  subHeader: Buffer,
  at: number,
  limit: number,
  what: string,
): Buffer | undefined {
  const offset = subHeader.readBigUInt64LE(at);
  const length = subHeader.readBigUInt64LE(at + 8);
  if (offset === 0n || length === 0n) return undefined;
  if (length > BigInt(limit) || offset > 1n << 52n) throw new FormatError(content.path, `damaged: ${what}`);
  return requireBytes(content, Number(offset), Number(length), what);
}

/**
 * Opens a kdump-compressed file of makedumpfile (zlib, LZO, snappy, zstd) or QEMU. Pages are decompressed
 * when they are read. Throws a FormatError for a damaged file, one of several parts (`makedumpfile --split`),
 * or another page size.
 */
export function openKdump(content: DumpContent): DumpSource {
  const { path } = content;
  const header = requireBytes(content, 0, HEADER.bytes, 'the header');
  const version = header.readInt32LE(HEADER.version);
  const machine = header
    .toString('latin1', HEADER.machine, HEADER.machine + UTS_LENGTH)
    .replace(/\0.*$/s, '');
  // A writer that did not know the machine left its name empty.
  const architecture = machine === '' ? architectures[0] : architectureOfUname(machine);
  if (architecture === undefined)
    throw new FormatError(
      path,
      `is of ${machine}, not of ${architectures.map(({ name }) => name).join(', ')}`,
    );
  const blockSize = header.readInt32LE(HEADER.blockSize);
  if (blockSize !== PAGE_SIZE)
    throw new FormatError(path, `has blocks of ${blockSize} bytes, not ${PAGE_SIZE}`);
  const subHeader = requireBytes(content, PAGE_SIZE, SUB_HEADER.bytes, 'the sub header');
  if (subHeader.readInt32LE(SUB_HEADER.split) !== 0) {
    throw new FormatError(
      path,
      'is one part of several: join them with `makedumpfile --reassemble PARTS DUMP`',
    );
  }
  const maxMapnr =
    version >= VERSION_64_BIT
      ? Number(subHeader.readBigUInt64LE(SUB_HEADER.maxMapnr64))
      : header.readUInt32LE(HEADER.maxMapnr);
  const bitmapBytes = header.readUInt32LE(HEADER.bitmapBlocks) * PAGE_SIZE;
  const bitmapAt = (1 + header.readUInt32LE(HEADER.subHeaderBlocks)) * PAGE_SIZE;
  if (maxMapnr > bitmapBytes * 4)
    throw new FormatError(path, `damaged: no bitmap for ${maxMapnr} page frames`);
  const bitmaps = requireBytes(content, bitmapAt, bitmapBytes, 'the bitmaps of its pages');
  const vmcoreinfo =
    version < VERSION_VMCOREINFO
      ? undefined
      : readPart(content, subHeader, SUB_HEADER.vmcoreinfo, MAX_VMCOREINFO_BYTES, 'VMCOREINFO');
  const noteBytes =
    version < VERSION_NOTE
      ? undefined
      : readPart(content, subHeader, SUB_HEADER.note, MAX_NOTE_BYTES, 'the notes');
  const notes = noteBytes === undefined ? [] : parseNotes(noteBytes);
  const parts = {
    content,
    existing: bitmaps.subarray(0, bitmapBytes / 2),
    dumped: bitmaps.subarray(bitmapBytes / 2),
    frames: maxMapnr,
    descriptorsAt: bitmapAt + bitmapBytes,
  };
  const isIncomplete = (header.readUInt32LE(HEADER.status) & STATUS_INCOMPLETE) !== 0;
  const { dumped, warning, problem } = checkBitmap(parts, isIncomplete);
  if (problem !== undefined) throw new FormatError(path, problem);
  const physical = new CompressedMemory({ ...parts, dumped });
  return {
    architecture,
    physical,
    dumpLevel: subHeader.readInt32LE(SUB_HEADER.dumpLevel),
    cpuNotes: cpuNotesOf(notes, architecture.notes),
    notes,
    vmcoreinfo: vmcoreinfo?.toString('latin1'),
    warnings: [...(warning === undefined ? [] : [warning]), ...lackOf(physical, isIncomplete, content.isCut)],
  };
}

/** What is missing from the file, as a sentence. */
function lackOf(physical: CompressedMemory, isIncomplete: boolean, isCut: boolean): string[] {
  const missing = physical.missingPages();
  if (isIncomplete || missing === 'never written')
    return ['incomplete: makedumpfile ran out of room, so some pages are missing'];
  return missing === 'none' && !isCut
    ? []
    : ['truncated: the file ends before its last page, so some pages are missing'];
}
