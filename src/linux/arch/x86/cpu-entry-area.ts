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
 * in the second copy (arch/x86/entry/entry_64.S). A nested one puts its own frame over the processor's, and
 * changes the first copy: the second one is of the outermost NMI, whatever comes.
 */
const FRAME_BYTES = 40;
const NMI_FIRST_COPY = -96n;
const NMI_OUTERMOST = -136n;
/** Bits of a selector that tell user mode from kernel mode. */
const PRIVILEGE = 3n;
/** The selector of kernel code (arch/x86/include/asm/segment.h). */
const KERNEL_CS = 0x10n;

/** What an exception has interrupted on a CPU that is on a stack of its own for it. */
export interface ExceptionFrame {
  readonly ip: bigint;
  readonly sp: bigint;
  /** Why it tells nothing, although it is there; undefined if it does. */
  readonly doubt: string | undefined;
  /** All registers, of an NMI whose frames agree. */
  readonly registers: Readonly<Record<string, bigint>> | undefined;
}

/**
 * Where an exception came to a CPU that is on one of these stacks; undefined if `sp` lies on none of them.
 * Throws a VmcoreError if the stack cannot be read.
 */
export function exceptionFrame(kernel: Kernel, cpu: number, sp: bigint): ExceptionFrame | undefined {
  const stacks = stacksOf(kernel, cpu);
  const stack = stacks.find((one) => isOn(one, sp));
  if (stack === undefined) return undefined;
  const own = kernel.memory.read(stack.end - BigInt(FRAME_BYTES), FRAME_BYTES);
  const isNmi = stack.name === 'NMI_stack';
  const outermost = isNmi ? kernel.memory.read(stack.end + NMI_OUTERMOST, FRAME_BYTES) : own;
  const { ip, cs, sp: before } = wordsOf(outermost);
  const registers = isNmi ? nmiRegisters(kernel, stack.end, [own, outermost]) : undefined;
  const found = { ip, sp: before, registers };
  // Code that comes from user mode leaves this stack before it does anything.
  if ((cs & PRIVILEGE) !== 0n) return { ...found, doubt: 'an exception with a stack of its own had come' };
  if (stacks.some((one) => isOn(one, before)))
    return { ...found, doubt: 'an exception had come to another, each with a stack of its own' };
  const isNested = isNmi && isOn(stack, wordsOf(own).sp);
  const agrees = !isNmi || (sp <= stack.end + NMI_OUTERMOST && (isNested || own.equals(outermost)));
  const isTold = agrees && cs === KERNEL_CS;
  return {
    ...found,
    doubt: isTold ? undefined : 'an exception has put down on its stack what does not agree',
  };
}

interface ExceptionStack {
  readonly name: string;
  readonly start: bigint;
  readonly end: bigint;
}

function stacksOf(kernel: Kernel, cpu: number): ExceptionStack[] {
  const stacks = kernel.memory.pointer(kernel.perCpu('cea_exception_stacks', cpu));
  return STACKS.flatMap((name) => {
    const member = kernel.layouts.member('cea_exception_stacks', name);
    if (member === undefined) return [];
    const start = stacks + BigInt(member.offsetBytes);
    return [{ name, start, end: start + BigInt(member.sizeBytes) }];
  });
}

function isOn({ start, end }: ExceptionStack, sp: bigint): boolean {
  return sp >= start && sp < end;
}

function wordsOf(frame: Buffer): { ip: bigint; cs: bigint; sp: bigint } {
  return { ip: frame.readBigUInt64LE(0), cs: frame.readBigUInt64LE(8), sp: frame.readBigUInt64LE(24) };
}

function nmiRegisters(kernel: Kernel, end: bigint, frames: readonly Buffer[]): ExceptionFrame['registers'] {
  const copy = kernel.memory.read(end + NMI_FIRST_COPY, FRAME_BYTES);
  if (!frames.every((frame) => frame.equals(copy))) return undefined;
  const type = kernel.bind(ptRegsStruct);
  const address = end + BigInt(FRAME_BYTES - type.size) + NMI_OUTERMOST;
  const { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, flags, sp } =
    type.at(address);
  return { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, flags, sp };
}
