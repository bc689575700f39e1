import {
  ELF_HEADER_BYTES,
  NT_GNU_BUILD_ID,
  PROGRAM_HEADER_BYTES,
  PT_NOTE,
  parseElfHeader,
  parseNotes,
  parseProgramHeaders,
} from '../../../system/elf.ts';

/** Bytes of a file. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** A hash of the content: of md5's length or more. Shorter ones may be chosen by hand. */
const LEAST_ID_BYTES = 16;
/** Notes of a program are a few hundred bytes. */
const MAX_NOTES_BYTES = 65536;

function hasBuildId(notes: Buffer): boolean {
  return parseNotes(notes).some(
    ({ name, type, description }) =>
      name === 'GNU' && type === NT_GNU_BUILD_ID && description.length >= LEAST_ID_BYTES,
  );
}

/**
 * The parts of a program or library that tell which build it is: its header, its program headers and the
 * notes with the build id. Two files that have these parts in common were the same when they were linked.
 * Undefined if it is no 64-bit ELF file or has no build id.
 *
 * @param read the bytes from `offset` on; undefined if there are fewer
 */
export function buildIdParts(
  read: (offset: number, length: number) => Buffer | undefined,
): ByteRange[] | undefined {
  const first = read(0, ELF_HEADER_BYTES);
  const header = first === undefined ? undefined : parseElfHeader(first);
  if (header === undefined || header.programHeaders === 'in section 0') return undefined;
  const { programHeadersOffset: offset } = header;
  const length = header.programHeaders * PROGRAM_HEADER_BYTES;
  const table = length === 0 || !Number.isSafeInteger(offset) ? undefined : read(offset, length);
  if (table === undefined) return undefined;
  for (const segment of parseProgramHeaders(table)) {
    const notes = { offset: segment.offset, length: segment.fileBytes };
    if (segment.type !== PT_NOTE || !Number.isSafeInteger(notes.offset) || notes.length > MAX_NOTES_BYTES)
      continue;
    const bytes = read(notes.offset, notes.length);
    if (bytes !== undefined && hasBuildId(bytes)) {
      return [{ offset: 0, length: ELF_HEADER_BYTES }, { offset, length }, notes];
    }
  }
  return undefined;
}
