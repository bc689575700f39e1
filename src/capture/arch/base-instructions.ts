import type { UserMemory } from '../../linux/readers/user-memory.ts';
import type { Vma } from '../../model/memory.ts';
import { PROT_EXEC } from '../../system/abi.ts';

/** F3, perhaps a REX prefix, 0F AE, and the byte that names the register (SDM 2, WRFSBASE/WRGSBASE). */
const OPCODE = Buffer.from([0x0f, 0xae]);
const PREFIX = 0xf3;
const LONGEST = 5;
/** The upper five bits of the byte that names the register. */
const WRITES = { fs: 0xd0, gs: 0xd8 } as const;

/**
 * Whether a process has the instruction that sets the FS or the GS base in code that it can execute and that
 * is in memory. The kernel does not learn of such a change before the thread leaves its CPU. Programs whose
 * thread pointers are the C library's have no such code.
 */
export function setsBase(base: 'fs' | 'gs', user: UserMemory, vmas: readonly Vma[]): boolean {
  return vmas
    .filter(({ prot }) => (prot & PROT_EXEC) !== 0)
    .some(({ start, end }) => user.someMapped(start, end, LONGEST - 1, (bytes) => isIn(bytes, WRITES[base])));
}

function isIn(bytes: Buffer, register: number): boolean {
  for (let at = bytes.indexOf(OPCODE); at !== -1; at = bytes.indexOf(OPCODE, at + 1)) {
    if (((bytes[at + 2] ?? 0) & 0xf8) !== register) continue;
    const before = bytes[at - 1] ?? 0;
    if (before === PREFIX || ((before & 0xf0) === 0x40 && bytes[at - 2] === PREFIX)) return true;
  }
  return false;
}
