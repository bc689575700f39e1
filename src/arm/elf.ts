import { ArmError } from './errors.ts';

const PROGRAM_HEADER_BYTES = 56;

/**
 * A 64-bit ELF program without what only debuggers and linkers read: cut after the last byte that a segment has in the file,
 * section headers forgotten (elf(5)). Symbols and debug sections lie behind the segments; of Node.js they are a fifth of the file.
 * @throws ArmError if it is no 64-bit little-endian ELF file
 */
export function withoutSections(file: Buffer): Buffer {
  if (file.length < 64 || file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) {
    throw new ArmError('not a 64-bit ELF program');
  }
  const headers = Number(file.readBigUInt64LE(32));
  const count = file.readUInt16LE(56);
  let end = headers + count * PROGRAM_HEADER_BYTES;
  for (let index = 0; index < count; index++) {
    const header = headers + index * PROGRAM_HEADER_BYTES;
    const offset = Number(file.readBigUInt64LE(header + 8));
    const sizeInFile = Number(file.readBigUInt64LE(header + 32));
    end = Math.max(end, offset + sizeInFile);
  }
  if (end > file.length) throw new ArmError('the ELF program is cut short');
  const stripped = Buffer.from(file.subarray(0, end));
  stripped.writeBigUInt64LE(0n, 40);
  stripped.writeUInt16LE(0, 60);
  stripped.writeUInt16LE(0, 62);
  return stripped;
}
