/** Bytes of an ELF header and of a program header of 64 bits (elf(5)). */
export const ELF_HEADER_BYTES = 64;
export const PROGRAM_HEADER_BYTES = 56;
export const SECTION_HEADER_BYTES = 64;

/** `e_machine` of x86-64. */
export const EM_X86_64 = 62;
export const ET_CORE = 4;

export const PT_LOAD = 1;
export const PT_NOTE = 4;
/** The note of name `GNU` with a hash of what was linked. */
export const NT_GNU_BUILD_ID = 3;

/** `\x7fELF`, 64 bits, little endian. */
const ELF64_LITTLE = Buffer.from('7f454c460201', 'hex');
/** e_phnum says so when there are more than it can count; the number is then in section 0. */
export const PN_XNUM = 0xffff;
/** Where things are in the header: section header table, number and name index of its entries. */
const [E_SHOFF, E_SHNUM, E_SHSTRNDX] = [40, 60, 62];

/** What the header of an ELF file says. Offsets beyond 2^53 are not exact: a damaged header may have them. */
export interface ElfHeader {
  /** ET_*: what kind of file it is. */
  readonly type: number;
  /** EM_*: for which processor. */
  readonly machine: number;
  readonly programHeadersOffset: number;
  readonly programHeaderBytes: number;
  /** How many program headers there are; `in section 0` if the header cannot count them. */
  readonly programHeaders: number | 'in section 0';
  readonly sectionHeadersOffset: number;
}

/** A segment. Numbers beyond 2^53 are not exact: a damaged header may have them. */
export interface ProgramHeader {
  /** PT_*. */
  readonly type: number;
  /** Of its bytes in the file. */
  readonly offset: number;
  /**
   * The same, exactly: in /proc/kcore of a kernel with five levels of page tables the direct map begins
   * beyond 2^53.
   */
  readonly exactOffset: bigint;
  readonly virtual: bigint;
  readonly physical: number;
  readonly fileBytes: number;
  /** Of memory; what the file has less of is zeros, or was left out. */
  readonly memoryBytes: number;
}

/** One ELF note; `description` is its content. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly description: Buffer;
}

/** The header of a 64-bit little-endian ELF file, which is its first 64 bytes; undefined if it is none. */
export function parseElfHeader(bytes: Buffer): ElfHeader | undefined {
  const isElf =
    bytes.length >= ELF_HEADER_BYTES && ELF64_LITTLE.equals(bytes.subarray(0, ELF64_LITTLE.length));
  if (!isElf) return undefined;
  const count = bytes.readUInt16LE(56);
  return {
    type: bytes.readUInt16LE(16),
    machine: bytes.readUInt16LE(18),
    programHeadersOffset: Number(bytes.readBigUInt64LE(32)),
    programHeaderBytes: bytes.readUInt16LE(54),
    programHeaders: count === PN_XNUM ? 'in section 0' : count,
    sectionHeadersOffset: Number(bytes.readBigUInt64LE(E_SHOFF)),
  };
}

/**
 * How many program headers an ELF file has.
 * @param read the bytes from `offset` on; called if the header cannot count so many
 */
export function programHeaderCount(
  { programHeaders, sectionHeadersOffset }: ElfHeader,
  read: (offset: number, length: number) => Buffer,
): number {
  if (programHeaders !== 'in section 0') return programHeaders;
  return read(sectionHeadersOffset, SECTION_HEADER_BYTES).readUInt32LE(44);
}

/** The segments of a table of program headers. */
export function parseProgramHeaders(table: Buffer): ProgramHeader[] {
  return Array.from({ length: Math.floor(table.length / PROGRAM_HEADER_BYTES) }, (_, index) => {
    const at = index * PROGRAM_HEADER_BYTES;
    return {
      type: table.readUInt32LE(at),
      offset: Number(table.readBigUInt64LE(at + 8)),
      exactOffset: table.readBigUInt64LE(at + 8),
      virtual: table.readBigUInt64LE(at + 16),
      physical: Number(table.readBigUInt64LE(at + 24)),
      fileBytes: Number(table.readBigUInt64LE(at + 32)),
      memoryBytes: Number(table.readBigUInt64LE(at + 40)),
    };
  });
}

/** The notes of a PT_NOTE segment, up to the first that does not fit: the kernel pads it with zeros. */
export function parseNotes(segment: Buffer): ElfNote[] {
  const notes: ElfNote[] = [];
  let at = 0;
  while (at + 12 <= segment.length) {
    const nameBytes = segment.readUInt32LE(at);
    const descriptionBytes = segment.readUInt32LE(at + 4);
    const type = segment.readUInt32LE(at + 8);
    const description = at + 12 + Math.ceil(nameBytes / 4) * 4;
    if (nameBytes === 0 || description + descriptionBytes > segment.length) break;
    const name = segment.toString('latin1', at + 12, at + 12 + nameBytes).replace(/\0.*$/s, '');
    notes.push({ name, type, description: segment.subarray(description, description + descriptionBytes) });
    at = description + Math.ceil(descriptionBytes / 4) * 4;
  }
  return notes;
}

/** The beginning of an ELF file, changed so that it says that no sections follow. */
export function forgetSections(file: Buffer): void {
  file.writeBigUInt64LE(0n, E_SHOFF);
  file.writeUInt16LE(0, E_SHNUM);
  file.writeUInt16LE(0, E_SHSTRNDX);
}
