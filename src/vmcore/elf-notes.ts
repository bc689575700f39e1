import { USER_REGISTERS, type UserRegister } from '../system/user-registers.ts';

/** One CPU at the moment of the dump (NT_PRSTATUS). */
export interface CpuNote {
  /** PID of the task that the kernel put down for this CPU; 0 for idle and in QEMU's dumps of a running guest. */
  readonly pid: number;
  readonly registers: Readonly<Record<UserRegister, bigint>>;
}

/** One ELF note; `description` is its content. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly description: Buffer;
}

export const NT_PRSTATUS = 1;
/** Offsets in `struct elf_prstatus` (include/linux/elfcore.h) of x86-64. */
const PR_PID = 32;
const PR_REG = 112;

/** Splits a PT_NOTE segment; stops at the first note that does not fit (the kernel pads the segment with zeroes). */
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

/** Registers of an NT_PRSTATUS note; undefined if it is too short to be x86-64's. */
export function parsePrstatus(description: Buffer): CpuNote | undefined {
  if (description.length < PR_REG + USER_REGISTERS.length * 8) return undefined;
  const entries = USER_REGISTERS.map(
    (name, i) => [name, description.readBigUInt64LE(PR_REG + i * 8)] as const,
  );
  return {
    pid: description.readInt32LE(PR_PID),
    // Object.fromEntries forgets which keys it was given; they are exactly USER_REGISTERS.
    registers: Object.fromEntries(entries) as Record<UserRegister, bigint>,
  };
}
