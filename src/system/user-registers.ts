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

export type UserRegister = (typeof USER_REGISTERS)[number];

/** sizeof(struct user_regs_struct). */
export const USER_REGISTERS_BYTES = USER_REGISTERS.length * 8;

/** Where a register is in `struct user_regs_struct`, in bytes. */
export function registerOffset(register: UserRegister): number {
  return USER_REGISTERS.indexOf(register) * 8;
}
