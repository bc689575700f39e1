import type { Architecture } from '../arch/index.ts';
import {
  ELF_HEADER_BYTES,
  PN_XNUM,
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  PT_NOTE,
  SECTION_HEADER_BYTES,
} from '../system/elf.ts';
import { PAGE_SIZE } from '../system/page.ts';

/** Part of the process's memory as the core has it: first what lies in the file, then what does not. */
export interface CoreSegment {
  /** User address; a multiple of 4096. */
  readonly start: number;
  /** PF_* of elf(5). */
  readonly flags: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
}

const ET_CORE = 4;

function programHeader(
  type: number,
  flags: number,
  offset: number,
  { start, fileBytes, memoryBytes }: Omit<CoreSegment, 'flags'>,
): Buffer {
  const header = Buffer.alloc(PROGRAM_HEADER_BYTES);
  header.writeUInt32LE(type, 0);
  header.writeUInt32LE(flags, 4);
  header.writeBigUInt64LE(BigInt(offset), 8);
  header.writeBigUInt64LE(BigInt(start), 16);
  header.writeBigUInt64LE(BigInt(fileBytes), 32);
  header.writeBigUInt64LE(BigInt(memoryBytes), 40);
  header.writeBigUInt64LE(BigInt(type === PT_LOAD ? PAGE_SIZE : 4), 48);
  return header;
}

function elfHeader({ elfMachine }: Architecture, count: number): Buffer {
  const header = Buffer.alloc(ELF_HEADER_BYTES);
  // 64 bits, little-endian, version 1.
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(ET_CORE, 16);
  header.writeUInt16LE(elfMachine, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32);
  header.writeUInt16LE(ELF_HEADER_BYTES, 52);
  header.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  header.writeUInt16LE(Math.min(count, PN_XNUM), 56);
  if (count < PN_XNUM) return header;
  header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES + count * PROGRAM_HEADER_BYTES), 40);
  header.writeUInt16LE(SECTION_HEADER_BYTES, 58);
  header.writeUInt16LE(1, 60);
  return header;
}

/**
 * A core file up to its first page: ELF header, program headers, notes, and zeros to the next page. The
 * segments' bytes follow one after the other.
 */
export function coreHeaders(
  architecture: Architecture,
  notes: Buffer,
  segments: readonly CoreSegment[],
): Buffer {
  const count = segments.length + 1;
  const sections = Buffer.alloc(count < PN_XNUM ? 0 : SECTION_HEADER_BYTES);
  if (sections.length > 0) sections.writeUInt32LE(count, 44);
  const notesAt = ELF_HEADER_BYTES + count * PROGRAM_HEADER_BYTES + sections.length;
  const pagesAt = Math.ceil((notesAt + notes.length) / PAGE_SIZE) * PAGE_SIZE;
  const ofNotes = { start: 0, fileBytes: notes.length, memoryBytes: 0 };
  const table = [programHeader(PT_NOTE, 0, notesAt, ofNotes)];
  let offset = pagesAt;
  for (const segment of segments) {
    table.push(programHeader(PT_LOAD, segment.flags, offset, segment));
    offset += segment.fileBytes;
  }
  const padding = Buffer.alloc(pagesAt - notesAt - notes.length);
  return Buffer.concat([elfHeader(architecture, count), ...table, sections, notes, padding]);
}
