import {
  forgetSections,
  PROGRAM_HEADER_BYTES,
  parseElfHeader,
  parseProgramHeaders,
  programHeaderCount,
} from '../system/elf.ts';
import { ArmError } from './errors.ts';

/**
 * A 64-bit ELF program without what only debuggers and linkers read: cut after the last byte that a segment
 * has in the file, section headers forgotten (elf(5)). Symbols and debug sections lie behind the segments; of
 * Node.js they are a fifth of the file.
 * @throws ArmError if it is no 64-bit little-endian ELF file
 */
export function withoutSections(file: Buffer): Buffer {
  const header = parseElfHeader(file);
  if (header === undefined) throw new ArmError('not a 64-bit ELF program');
  const start = header.programHeadersOffset;
  const count = programHeaderCount(header, (offset, length) => file.subarray(offset, offset + length));
  const tableEnd = start + count * PROGRAM_HEADER_BYTES;
  const segments = parseProgramHeaders(file.subarray(start, tableEnd));
  const end = Math.max(tableEnd, ...segments.map(({ offset, fileBytes }) => offset + fileBytes));
  if (end > file.length) throw new ArmError('the ELF program is cut short');
  const stripped = Buffer.from(file.subarray(0, end));
  forgetSections(stripped);
  return stripped;
}
