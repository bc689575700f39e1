import type { Kernel } from '../../../vmcore/kernel.ts';
import { addressOf, struct } from '../../../vmcore/view.ts';

/**
 * `struct cea_exception_stacks`: the stacks of a CPU for what may come at any time
 * (arch/x86/include/asm/cpu_entry_area.h).
 */
export const ceaExceptionStacksStruct = struct('cea_exception_stacks', { nmi: addressOf('NMI_stack') });

/** Its members that are stacks: of double faults, NMI, debug exceptions and machine checks. */
const STACKS = ['DF_stack', 'NMI_stack', 'DB_stack', 'MCE_stack'];
/** The processor puts down SS, RSP, RFLAGS, CS and RIP at the end of such a stack (SDM 3, 6.14.2). */
const FRAME_IP = -40n;

/**
 * The instruction at which an exception came to a CPU that is on one of these stacks; undefined if `sp` lies
 * on none of them. Throws a VmcoreError if the stack cannot be read.
 */
export function exceptionFrameIp(kernel: Kernel, cpu: number, sp: bigint): bigint | undefined {
  const stacks = kernel.memory.pointer(kernel.perCpu('cea_exception_stacks', cpu));
  for (const name of STACKS) {
    const member = kernel.layouts.member('cea_exception_stacks', name);
    if (member === undefined) continue;
    const start = stacks + BigInt(member.offsetBytes);
    const end = start + BigInt(member.sizeBytes);
    if (sp >= start && sp < end) return kernel.memory.u64(end + FRAME_IP);
  }
  return undefined;
}
