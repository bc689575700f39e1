import type { Kernel } from '../../../vmcore/kernel.ts';
import { addressOf, struct } from '../../../vmcore/view.ts';
import { ptRegsStruct } from './ptrace.ts';

/**
 * `struct cea_exception_stacks`: the stacks of a CPU for what may come at any time
 * (arch/x86/include/asm/cpu_entry_area.h).
 */
export const ceaExceptionStacksStruct = struct('cea_exception_stacks', { nmi: addressOf('NMI_stack') });

/** Its members that are stacks: of double faults, NMI, debug exceptions and machine checks. */
const STACKS = ['DF_stack', 'NMI_stack', 'DB_stack', 'MCE_stack'];
/**
 * The processor puts down SS, RSP, RFLAGS, CS and RIP at the end of such a stack (SDM 3, 6.14.2). An NMI that
 * comes to the kernel leaves room for two words below, copies the frame twice, and has `struct pt_regs` end
 * in the second copy (arch/x86/entry/entry_64.S): a nested one would change the first or the processor's own.
 */
const FRAME_BYTES = 40;
const NMI_COPIES = [-96n, -136n];
/** Bits of a selector that tell user mode from kernel mode. */
const PRIVILEGE = 3n;

/** What an exception has interrupted on a CPU that is on a stack of its own for it. */
export interface ExceptionFrame {
  readonly ip: bigint;
  readonly sp: bigint;
  /** It was user mode: code that comes from there leaves this stack before it does anything. */
  readonly isUser: boolean;
  /** All registers, of an NMI whose frames agree. */
  readonly registers: Readonly<Record<string, bigint>> | undefined;
}

/**
 * Where an exception came to a CPU that is on one of these stacks; undefined if `sp` lies on none of them.
 * Throws a VmcoreError if the stack cannot be read.
 */
export function exceptionFrame(kernel: Kernel, cpu: number, sp: bigint): ExceptionFrame | undefined {
  const stacks = kernel.memory.pointer(kernel.perCpu('cea_exception_stacks', cpu));
  for (const name of STACKS) {
    const member = kernel.layouts.member('cea_exception_stacks', name);
    if (member === undefined) continue;
    const start = stacks + BigInt(member.offsetBytes);
    const end = start + BigInt(member.sizeBytes);
    if (sp < start || sp >= end) continue;
    const frame = kernel.memory.read(end - BigInt(FRAME_BYTES), FRAME_BYTES);
    const registers = name === 'NMI_stack' ? nmiRegisters(kernel, end, frame) : undefined;
    const [ip, cs] = [frame.readBigUInt64LE(0), frame.readBigUInt64LE(8)];
    return { ip, sp: frame.readBigUInt64LE(24), isUser: (cs & PRIVILEGE) !== 0n, registers };
  }
  return undefined;
}

function nmiRegisters(kernel: Kernel, end: bigint, frame: Buffer): ExceptionFrame['registers'] {
  const agree = NMI_COPIES.every((at) => kernel.memory.read(end + at, FRAME_BYTES).equals(frame));
  if (!agree) return undefined;
  const type = kernel.bind(ptRegsStruct);
  const address = end + BigInt(FRAME_BYTES - type.size) + (NMI_COPIES.at(-1) ?? 0n);
  const { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, flags, sp } =
    type.at(address);
  return { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, flags, sp };
}
