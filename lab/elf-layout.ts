import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** Sizes in an ELF file of 64 bits (elf(5)), and where its header says what this is about. */
const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;
const E_PHOFF = 32;
const E_SHOFF = 40;
const E_PHNUM = 56;
const E_SHENTSIZE = 58;
/** e_phnum says so when there are more than it can count. */
const PN_XNUM = 0xffff;

/**
 * Moves the program headers of a dump to right behind the ELF header. QEMU puts section headers in between,
 * of which a dump needs none; makedumpfile looks for program headers nowhere else, and finds no memory.
 */
export function putProgramHeadersFirst(path: string): void {
  const fd = openSync(path, 'r+');
  try {
    const header = Buffer.alloc(ELF_HEADER);
    readSync(fd, header, 0, ELF_HEADER, 0);
    const count = header.readUInt16LE(E_PHNUM);
    const from = Number(header.readBigUInt64LE(E_PHOFF));
    if (from <= ELF_HEADER || count === PN_XNUM) return;
    const table = Buffer.alloc(count * PROGRAM_HEADER);
    readSync(fd, table, 0, table.length, from);
    header.writeBigUInt64LE(BigInt(ELF_HEADER), E_PHOFF);
    header.writeBigUInt64LE(0n, E_SHOFF);
    header.fill(0, E_SHENTSIZE, ELF_HEADER);
    writeSync(fd, Buffer.concat([header, table]), 0, ELF_HEADER + table.length, 0);
  } finally {
    closeSync(fd);
  }
}
