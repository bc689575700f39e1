import type { Architecture } from '../arch/index.ts';
import {
  ELF_HEADER_BYTES,
  PN_XNUM,
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  PT_NOTE,
  SECTION_HEADER_BYTES,
} from '../system/elf.ts';
import { encodeCoreHeader, encodeProgramHeader } from '../system/elf-core-writer.ts';
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
  const table = [
    encodeProgramHeader({
      type: PT_NOTE,
      offset: notesAt,
      fileBytes: notes.length,
      memoryBytes: 0,
      alignment: 4,
    }),
  ];
  let offset = pagesAt;
  for (const { start, flags, fileBytes, memoryBytes } of segments) {
    table.push(
      encodeProgramHeader({
        type: PT_LOAD,
        flags,
        offset,
        virtual: start,
        fileBytes,
        memoryBytes,
        alignment: PAGE_SIZE,
      }),
    );
    offset += fileBytes;
  }
  const padding = Buffer.alloc(pagesAt - notesAt - notes.length);
  return Buffer.concat([
    encodeCoreHeader(architecture.elfMachine, count),
    ...table,
    sections,
    notes,
    padding,
  ]);
}
