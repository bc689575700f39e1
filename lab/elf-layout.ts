import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { ELF_HEADER_BYTES, PN_XNUM, PROGRAM_HEADER_BYTES } from '../src/system/elf.ts';

/** Where the header of an ELF file of 64 bits (elf(5)) says what this is about. */
const E_PHOFF = 32;
const E_SHOFF = 40;
const E_PHNUM = 56;
const E_SHENTSIZE = 58;

/**
 * Moves the program headers of a dump to right behind the ELF header. QEMU puts section headers in between,
 * of which a dump needs none; makedumpfile looks for program headers nowhere else, and finds no memory.
 */
export function putProgramHeadersFirst(path: string): void {
  const fd = openSync(path, 'r+');
  try {
    const header = Buffer.alloc(ELF_HEADER_BYTES);
    readSync(fd, header, 0, ELF_HEADER_BYTES, 0);
    const count = header.readUInt16LE(E_PHNUM);
    const from = Number(header.readBigUInt64LE(E_PHOFF));
    if (from <= ELF_HEADER_BYTES || count === PN_XNUM) return;
    const table = Buffer.alloc(count * PROGRAM_HEADER_BYTES);
    readSync(fd, table, 0, table.length, from);
    header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), E_PHOFF);
    header.writeBigUInt64LE(0n, E_SHOFF);
    header.fill(0, E_SHENTSIZE, ELF_HEADER_BYTES);
    writeSync(fd, Buffer.concat([header, table]), 0, ELF_HEADER_BYTES + table.length, 0);
  } finally {
    closeSync(fd);
  }
}
