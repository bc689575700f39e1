import { exceptionFrameIp } from '../../linux/arch/x86/cpu-entry-area.ts';
import { fpregsOwner, isInKernelFpu } from '../../linux/arch/x86/fpu.ts';
import { cpuNoteOf } from '../../linux/current.ts';
import { hasThreadFlag, type Task, TIF } from '../../linux/sched.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/**
 * Code outside the entry text in which what is on a task's stack, or in the processor, is in part another
 * entry's or another task's: `sync_regs` and `fixup_bad_iret` move registers to the stack
 * (arch/x86/kernel/traps.c), and so does what FRED enters; `__switch_to` gives the processor the next task's
 * segment bases and key rights before `current` is the next task.
 */
const BETWEEN: ReadonlySet<string> = new Set([
  ...['sync_regs', 'fixup_bad_iret', 'asm_fred_entrypoint_user', 'asm_fred_entrypoint_kernel'],
  ...['__switch_to', '__switch_to_asm'],
]);

/**
 * Where in the kernel a processor was that executed a task: undefined if it was in user mode. The crash note
 * of the one that panicked has registers of panic() itself; if an NMI or another exception with a stack of
 * its own has led there, the processor has put down where it was at the end of that stack.
 */
function kernelIp(kernel: Kernel, cpu: number, task: Task): bigint | undefined {
  const registers = cpuNoteOf(kernel, cpu, task.pid)?.registers;
  if (registers?.ip === undefined || kernel.architecture.notes.isUserMode(registers)) return undefined;
  return exceptionFrameIp(kernel, cpu, registers.sp ?? 0n) ?? registers.ip;
}

/**
 * Why the registers of a task that was executing on a CPU cannot be believed, those on its kernel stack
 * included; undefined if they can. It was on its way into or out of the kernel (arch/x86/entry/entry_64.S),
 * or from one task to another.
 */
export function doubtOfRegisters(kernel: Kernel, cpu: number, task: Task): string | undefined {
  const ip = kernelIp(kernel, cpu, task);
  if (ip === undefined) return undefined;
  const start = kernel.symbolMaybe('__entry_text_start');
  const end = kernel.symbolMaybe('__entry_text_end');
  if (start === undefined || end === undefined)
    return 'was on a CPU, and the kernel does not show where its entry code is: nothing tells its registers';
  const isBetween = (ip >= start && ip < end) || BETWEEN.has(kernel.symbolAt(ip)?.name ?? '');
  return isBetween
    ? 'was on a CPU, on its way into or out of the kernel: nothing tells its registers'
    : undefined;
}

/**
 * Whether the kernel was moving a task's vector registers to memory, to use the processor's itself
 * (kernel_fpu_begin): it says that they are in memory before they are, and takes them off the processor when
 * it has moved them.
 */
export function wasSavingRegisters(kernel: Kernel, cpu: number, task: Task): boolean {
  const claimed = hasThreadFlag(task, TIF.needFpuLoad);
  return claimed && isInKernelFpu(kernel, cpu) && fpregsOwner(kernel, cpu) === task.thread.fpu;
}
