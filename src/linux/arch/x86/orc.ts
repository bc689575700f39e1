import type { Kernel } from '../../../vmcore/kernel.ts';
import { optional, pointer, s16, struct, u32, type ViewOf } from '../../../vmcore/view.ts';

/**
 * `struct orc_entry` (arch/x86/include/asm/orc_types.h): where, from a place in the code on, the caller's
 * stack pointer and frame pointer are.
 */
export const orcEntryStruct = struct('orc_entry', {
  sp_offset: s16,
  bp_offset: s16,
  sp_reg: u32,
  bp_reg: u32,
  type: u32,
  // 6.4 made it a value of `type` and numbered the others anew; 6.3 brought `signal`
  end: optional(u32),
  signal: optional(u32),
});

/** `struct mod_arch_specific` (arch/x86/include/asm/module.h): a module has a table of its own. */
export const modArchSpecificStruct = struct('mod_arch_specific', {
  num_orcs: u32,
  orc_unwind_ip: pointer,
  orc_unwind: pointer,
});

/** ORC_REG_*: the same in all releases. */
export const ORC_REG = {
  undefined: 0,
  prevSp: 1,
  dx: 2,
  di: 3,
  bp: 4,
  sp: 5,
  r10: 6,
  r13: 7,
  bpIndirect: 8,
  spIndirect: 9,
} as const;

/** An entry, read: its type in words that all releases share. */
export interface OrcEntry {
  readonly type: 'undefined' | 'end' | 'call' | 'regs' | 'regs-partial';
  /** The frame is of an instruction that was interrupted; undefined where the type alone tells (6.1). */
  readonly signal: boolean | undefined;
  readonly spReg: number;
  readonly spOffset: number;
  readonly bpReg: number;
  readonly bpOffset: number;
}

/** A table: 32-bit addresses, each relative to its own place, ascending; and as many entries. */
interface OrcTable {
  readonly ips: bigint;
  readonly entries: bigint;
  readonly count: number;
}

/** ORC_TYPE_* since 6.4, UNWIND_HINT_TYPE_* (include/linux/objtool.h) before. */
const TYPES = ['undefined', 'end', 'call', 'regs', 'regs-partial'] as const;
const TYPES_BEFORE_6_4 = ['call', 'regs', 'regs-partial'] as const;

/** More entries than any kernel has: 6.12 has half a million. */
const MAX_ENTRIES = 1 << 24;

function kernelTable(kernel: Kernel): OrcTable | string {
  const [ips, end, entries, entriesEnd] = [
    '__start_orc_unwind_ip',
    '__stop_orc_unwind_ip',
    '__start_orc_unwind',
    '__stop_orc_unwind',
  ].map((name) => kernel.symbolMaybe(name) ?? 0n);
  if (!ips || !end || !entries || !entriesEnd) return 'the kernel has no ORC tables';
  const count = Number(end - ips) / 4;
  const size = kernel.bind(orcEntryStruct).size;
  const fits = Number.isInteger(count) && count > 0 && Number(entriesEnd - entries) === count * size;
  return fits ? { ips, entries, count } : 'the ORC tables of the kernel do not fit together';
}

/** The table that has an address of code; a sentence's end where there is none. */
function tableOf(kernel: Kernel, ip: bigint, moduleArch: bigint | undefined): OrcTable | string {
  const start = kernel.symbolMaybe('_stext') ?? 0n;
  const end = kernel.symbolMaybe('_etext') ?? 0n;
  if (ip >= start && ip < end) return kernelTable(kernel);
  if (moduleArch === undefined) return 'it is in no code of the kernel or of a module';
  const {
    orc_unwind_ip: ips,
    orc_unwind: entries,
    num_orcs: count,
  } = kernel.bind(modArchSpecificStruct).at(moduleArch);
  return ips === 0n || entries === 0n || count === 0
    ? 'its module has no ORC table'
    : { ips, entries, count };
}

/**
 * The last entry at or below an address, as `__orc_find` (arch/x86/kernel/unwind_orc.c) chooses among equal
 * ones.
 */
function search(kernel: Kernel, { ips, count }: OrcTable, ip: bigint): number | undefined {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    const at = ips + BigInt(middle * 4);
    if (BigInt.asUintN(64, at + BigInt(kernel.memory.s32(at))) <= ip) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? undefined : low - 1;
}

/**
 * What the kernel's own tables say of the stack at an instruction; a sentence's end if they say nothing.
 *
 * @param moduleArch address of the `struct mod_arch_specific` of the module that the instruction is in;
 * undefined if it is in none
 * @throws VmcoreError if a table cannot be read
 */
export function orcFind(kernel: Kernel, ip: bigint, moduleArch: bigint | undefined): OrcEntry | string {
  const table = tableOf(kernel, ip, moduleArch);
  if (typeof table === 'string') return table;
  if (table.count > MAX_ENTRIES) return `its ORC table has ${table.count} entries`;
  const index = search(kernel, table, ip);
  if (index === undefined) return 'it is before the first entry of its ORC table';
  const type = kernel.bind(orcEntryStruct);
  return readEntry(type.at(table.entries + BigInt(index * type.size)));
}

/** Types that a later kernel may bring are not known. */
function readEntry(raw: ViewOf<typeof orcEntryStruct>): OrcEntry | string {
  const { sp_reg: spReg, sp_offset: spOffset, bp_reg: bpReg, bp_offset: bpOffset } = raw;
  const { end, signal, type: number } = raw;
  if (end === undefined && signal === undefined) return 'its ORC table is of no known form';
  const isUndefined = end !== undefined && spReg === ORC_REG.undefined;
  const ending = end === 0 ? 'undefined' : 'end';
  const type = isUndefined ? ending : (end === undefined ? TYPES : TYPES_BEFORE_6_4)[number];
  if (type === undefined) return `its ORC entry has the type ${number}`;
  return { type, signal: signal === undefined ? undefined : signal !== 0, spReg, spOffset, bpReg, bpOffset };
}
