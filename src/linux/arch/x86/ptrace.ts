import type { Kernel } from '../../../vmcore/kernel.ts';
import { struct, u64, type ViewOf } from '../../../vmcore/view.ts';

/**
 * `struct pt_regs` (arch/x86/include/asm/ptrace.h). With FRED the upper bits of cs and ss carry other things.
 */
export const ptRegsStruct = struct('pt_regs', {
  r15: u64,
  r14: u64,
  r13: u64,
  r12: u64,
  bp: u64,
  bx: u64,
  r11: u64,
  r10: u64,
  r9: u64,
  r8: u64,
  ax: u64,
  cx: u64,
  dx: u64,
  si: u64,
  di: u64,
  orig_ax: u64,
  ip: u64,
  // 6.9 made these the low halves of csx and ssx
  cs: u64.at('csx', 'cs'),
  flags: u64,
  sp: u64,
  ss: u64.at('ssx', 'ss'),
});

export type PtRegs = ViewOf<typeof ptRegsStruct>;

/**
 * Size of a kernel stack. KASAN would double it, but no distribution ships a kernel with it. THREAD_SIZE is a
 * macro, so the size of `union thread_union` (stack[THREAD_SIZE / sizeof(long)]) is asked for first.
 */
export function threadSize(kernel: Kernel): number {
  return kernel.layouts.sizeOf('thread_union') ?? 16384;
}

/** Whether a stack pointer is on the kernel stack of a task. */
export function isOnStackOf(kernel: Kernel, { stack }: { readonly stack: bigint }, sp: bigint): boolean {
  return sp > stack && sp < stack + BigInt(threadSize(kernel));
}

/**
 * Bytes left free above pt_regs (TOP_OF_KERNEL_STACK_PADDING): none up to 6.8, and two words since then in
 * kernels built with CONFIG_X86_FRED, which is recognised by the FRED entry point.
 */
function topOfStackPadding(kernel: Kernel): number {
  return kernel.symbolMaybe('asm_fred_entrypoint_user') === undefined ? 0 : 16;
}

/**
 * The user registers that a task saved when it last entered the kernel: `task_pt_regs()`. `stack` is
 * task_struct.stack.
 */
export function taskPtRegs(kernel: Kernel, stack: bigint): PtRegs {
  const type = kernel.bind(ptRegsStruct);
  return type.at(stack + BigInt(threadSize(kernel) - topOfStackPadding(kernel) - type.size));
}
