import { parseNotes } from '../../vmcore/elf-notes.ts';

/** Bytes of a file. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
/** `\x7fELF`, 64 bits, little endian (elf(5)). */
const ELF64_LITTLE = Buffer.from('7f454c460201', 'hex');
const PT_NOTE = 4;
const NT_GNU_BUILD_ID = 3;
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
 * The parts of a program or library that tell which build it is: its header, its program headers and the notes with the build id. Two files that
 * have these parts in common were the same when they were linked. Undefined if it is no 64-bit ELF file or has no build id.
 *
 * @param read the bytes from `offset` on; undefined if there are fewer
 */
export function buildIdParts(
  read: (offset: number, length: number) => Buffer | undefined,
): ByteRange[] | undefined {
  const header = read(0, HEADER_BYTES);
  if (header === undefined || !header.subarray(0, ELF64_LITTLE.length).equals(ELF64_LITTLE)) return undefined;
  const offset = Number(header.readBigUInt64LE(32));
  const length = header.readUInt16LE(56) * PROGRAM_HEADER_BYTES;
  const headers = length === 0 || !Number.isSafeInteger(offset) ? undefined : read(offset, length);
  if (headers === undefined) return undefined;
  for (let at = 0; at < length; at += PROGRAM_HEADER_BYTES) {
    if (headers.readUInt32LE(at) !== PT_NOTE) continue;
    const notes = {
      offset: Number(headers.readBigUInt64LE(at + 8)),
      length: Number(headers.readBigUInt64LE(at + 32)),
    };
    if (!Number.isSafeInteger(notes.offset) || notes.length > MAX_NOTES_BYTES) continue;
    const bytes = read(notes.offset, notes.length);
    if (bytes !== undefined && hasBuildId(bytes)) {
      return [{ offset: 0, length: HEADER_BYTES }, { offset, length }, notes];
    }
  }
  return undefined;
}
