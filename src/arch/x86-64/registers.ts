import type { NoteFormat } from '../architecture.ts';
import { vectorNotes } from './xsave.ts';

/** General registers in the order of the kernel's `struct user_regs_struct` (arch/x86/include/asm/user_64.h). */
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
