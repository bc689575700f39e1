import { USER_REGISTERS, type UserRegister } from '../system/user-registers.ts';

/** One CPU at the moment of the dump (NT_PRSTATUS). */
export interface CpuNote {
  /** PID of the task that the kernel put down for this CPU; 0 for idle and in QEMU's dumps of a running guest. */
  readonly pid: number;
  readonly registers: Readonly<Record<UserRegister, bigint>>;
}

export const NT_PRSTATUS = 1;
/** Offsets in `struct elf_prstatus` (include/linux/elfcore.h) of x86-64. */
const PR_PID = 32;
const PR_REG = 112;

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
