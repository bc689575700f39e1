import type { Kernel } from '../../../../vmcore/kernel.ts';
import { moduleOf, readModules } from '../../../module.ts';
import type { Area } from './memory.ts';
import type { InterruptFrame } from './run.ts';

/** Selectors of 64-bit kernel code (arch/x86/include/asm/segment.h). */
const KERNEL_CS = 0x10n;
/** Its stack segment: as SYSCALL gives it, and as an interrupt from user mode does. */
const KERNEL_SS: readonly bigint[] = [0x18n, 0n];
const ALWAYS_SET = 2n;
/** The processor aligns the stack pointer before it puts a frame down (SDM 3, 6.14.2). */
const ALIGNMENT = 16n;

function isCode(kernel: Kernel, ip: bigint): boolean {
  const [start, end] = [kernel.symbolMaybe('_stext'), kernel.symbolMaybe('_etext')];
  if (start !== undefined && end !== undefined && ip >= start && ip < end) return true;
  return moduleOf(readModules(kernel).modules, ip) !== undefined;
}

/**
 * What speaks against a frame being one that the processor has put down when it interrupted the kernel; the
 * end of a sentence. Memory that was overwritten, with zeros for one, has the privilege of the kernel too.
 *
 * @param end where the frame ends
 * @param stacks what the kernel can have been interrupted on: not the entry stack, whose code is entry code
 * @throws VmcoreError if the list of modules cannot be read
 */
export function kernelFrameDoubt(
  kernel: Kernel,
  { ip, cs, flags, sp, ss }: InterruptFrame,
  end: bigint,
  stacks: readonly Area[],
): string | undefined {
  if (cs !== KERNEL_CS || !KERNEL_SS.includes(ss) || (flags & ALWAYS_SET) === 0n)
    return 'it leads to a frame that is neither of user mode nor of the kernel';
  if (!isCode(kernel, ip)) return 'it leads to a frame of no code of the kernel';
  if (!stacks.some((stack) => sp > stack.start && sp <= stack.end))
    return 'it leads to a frame of a stack that the kernel does not use there';
  return sp - (sp % ALIGNMENT) === end ? undefined : 'it leads to a frame that is not where it belongs';
}
