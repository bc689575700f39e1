import type { NoteFormat, PtraceRegisters } from '../architecture.ts';
import { vectorNotes } from './xsave.ts';

/**
 * General registers in the order of the kernel's `struct user_regs_struct` (arch/x86/include/asm/user_64.h).
 */
export const USER_REGISTERS = [
  'r15',
  'r14',
  'r13',
  'r12',
  'bp',
  'bx',
  'r11',
  'r10',
  'r9',
  'r8',
  'ax',
  'cx',
  'dx',
  'si',
  'di',
  'orig_ax',
  'ip',
  'cs',
  'flags',
  'sp',
  'ss',
  'fs_base',
  'gs_base',
  'ds',
  'es',
  'fs',
  'gs',
] as const;

/** Selectors of 64-bit user code, of 32-bit user code and of user data (arch/x86/include/asm/segment.h). */
export const USER_CS = 0x33n;
export const USER32_CS = 0x23n;
export const USER_DS = 0x2bn;

/** RFLAGS of a program that starts: interrupts are on; bit 1 is always set. */
export const INITIAL_FLAGS = 0x202n;

/** Bits of a selector that tell user mode from kernel mode. */
const PRIVILEGE = 3n;

/** `struct elf_prstatus` (include/linux/elfcore.h). */
export const notes: NoteFormat = {
  bytes: 336,
  pid: 32,
  registers: 112,
  fpValid: 328,
  names: USER_REGISTERS,
  isUserMode: ({ cs = 0n }) => (cs & PRIVILEGE) !== 0n,
  vectorNotes,
};

function offsetOf(name: (typeof USER_REGISTERS)[number]): number {
  return 8 * USER_REGISTERS.indexOf(name);
}

/** `struct user_regs_struct`. */
export const ptraceRegisters: PtraceRegisters = {
  bytes: 8 * USER_REGISTERS.length,
  result: offsetOf('ax'),
  current: offsetOf('orig_ax'),
  arguments: [
    offsetOf('di'),
    offsetOf('si'),
    offsetOf('dx'),
    offsetOf('r10'),
    offsetOf('r8'),
    offsetOf('r9'),
  ],
  instructionPointer: offsetOf('ip'),
  stackPointer: offsetOf('sp'),
};
