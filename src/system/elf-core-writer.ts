import {
  ELF_HEADER_BYTES,
  ET_CORE,
  PN_XNUM,
  PROGRAM_HEADER_BYTES,
  type PT_LOAD,
  type PT_NOTE,
  SECTION_HEADER_BYTES,
} from './elf.ts';

/** A segment of a core file, as its program header says it. Addresses and sizes are in bytes. */
export interface CoreProgramHeader {
  readonly type: typeof PT_LOAD | typeof PT_NOTE;
  /** PF_* of elf(5); 0 if left out. */
  readonly flags?: number;
  readonly offset: number;
  /** 0 if left out. */
  readonly virtual?: number | bigint;
  /** 0 if left out. */
  readonly physical?: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
  /** 0 if left out: none. */
  readonly alignment?: number;
}

/** A program header of a 64-bit little-endian ELF file: 56 bytes (elf(5)). */
export function encodeProgramHeader(header: CoreProgramHeader): Buffer {
  const bytes = Buffer.alloc(PROGRAM_HEADER_BYTES);
  bytes.writeUInt32LE(header.type, 0);
  bytes.writeUInt32LE(header.flags ?? 0, 4);
  bytes.writeBigUInt64LE(BigInt(header.offset), 8);
  bytes.writeBigUInt64LE(BigInt(header.virtual ?? 0), 16);
  bytes.writeBigUInt64LE(BigInt(header.physical ?? 0), 24);
  bytes.writeBigUInt64LE(BigInt(header.fileBytes), 32);
  bytes.writeBigUInt64LE(BigInt(header.memoryBytes), 40);
  bytes.writeBigUInt64LE(BigInt(header.alignment ?? 0), 48);
  return bytes;
}

/**
 * The header of a 64-bit little-endian core file: 64 bytes; the program headers follow it.
 * @param machine EM_*
 * @param programHeaders how many; from PN_XNUM on, section 0 behind the program headers says how many
 */
export function encodeCoreHeader(machine: number, programHeaders: number): Buffer {
  const header = Buffer.alloc(ELF_HEADER_BYTES);
  // 64 bits, little-endian, version 1.
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(ET_CORE, 16);
  header.writeUInt16LE(machine, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32);
  header.writeUInt16LE(ELF_HEADER_BYTES, 52);
  header.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  header.writeUInt16LE(Math.min(programHeaders, PN_XNUM), 56);
  if (programHeaders < PN_XNUM) return header;
  header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES + programHeaders * PROGRAM_HEADER_BYTES), 40);
  header.writeUInt16LE(SECTION_HEADER_BYTES, 58);
  header.writeUInt16LE(1, 60);
  return header;
}
