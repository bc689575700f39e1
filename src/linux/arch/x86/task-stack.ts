import { readable } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { cpuNoteOf, pcpuHot } from '../../current.ts';
import type { Task } from '../../sched.ts';
import { exceptionFrame } from './cpu-entry-area.ts';
import { taskPtRegs, threadSize } from './ptrace.ts';
import { inactiveTaskFrameStruct } from './switch-to.ts';
import { type StackArea, type UnwindStart, type Unwound, unwind } from './unwind.ts';

/** IRQ_STACK_SIZE (arch/x86/include/asm/page_64_types.h), without KASAN. */
const IRQ_STACK_BYTES = 16384n;

/** What is on the kernel stack of a task. */
export type TaskStack = Unwound;

/** The stack for hardware interrupts of a CPU: `hardirq_stack_ptr` is its last word. */
export function interruptStack(kernel: Kernel, cpu: number): StackArea | undefined {
  const hot = kernel.symbolMaybe('pcpu_hot');
  const last =
    hot === undefined
      ? readable(() => kernel.memory.pointer(kernel.perCpu('hardirq_stack_ptr', cpu)))
      : readable(() => kernel.bind(pcpuHot).at(kernel.perCpu(hot, cpu)).hardirq_stack_ptr);
  return last === undefined ? undefined : { start: last + 8n - IRQ_STACK_BYTES, end: last + 8n };
}

/**
 * Where a CPU was in the kernel or, if an exception with a stack of its own had come, in what that has
 * interrupted; undefined if the CPU was in user mode, or nothing tells. Throws a VmcoreError if the stack of
 * an exception cannot be read.
 *
 * @param pid the `current` task's
 */
export function placeOnCpu(
  kernel: Kernel,
  cpu: number,
  pid: number,
): { readonly ip: bigint; readonly sp: bigint } | undefined {
  const { ip, sp, ...others } = cpuNoteOf(kernel, cpu, pid)?.registers ?? {};
  if (ip === undefined || sp === undefined) return undefined;
  if (kernel.architecture.notes.isUserMode({ ip, sp, ...others })) return undefined;
  const frame = exceptionFrame(kernel, cpu, sp);
  if (frame === undefined) return { ip, sp };
  return frame.doubt === undefined ? frame : undefined;
}

function startOnCpu(kernel: Kernel, task: Task, cpu: number): UnwindStart | string {
  const registers = cpuNoteOf(kernel, cpu, task.pid)?.registers;
  if (registers === undefined) return `nothing tells the registers of CPU ${cpu}`;
  const { ip, sp, bp } = registers;
  if (ip === undefined || sp === undefined || bp === undefined)
    return `the registers of CPU ${cpu} are not all there`;
  return { ip, sp, bp, registers };
}

function startOffCpu(kernel: Kernel, { thread }: Task): UnwindStart {
  const type = kernel.bind(inactiveTaskFrameStruct);
  const { bp, ret_addr: ip } = type.at(thread.sp);
  return { ip, bp, sp: thread.sp + BigInt(type.size), registers: undefined };
}

/**
 * Unwinds the kernel stack of a task. One that was executing (`cpu`) starts where the dump's note says that
 * its CPU was stopped: not for the CPU that panicked, whose note has the registers of panic() itself. Throws
 * a VmcoreError if the beginning of the stack cannot be read.
 */
export function taskStack(
  kernel: Kernel,
  task: Task,
  cpu: number | undefined,
  moduleArch: (ip: bigint) => bigint | undefined,
): TaskStack {
  const { stack } = task;
  if (stack === 0n) return { frames: [], end: { why: 'it has no kernel stack' } };
  const own = { start: stack, end: stack + BigInt(threadSize(kernel)) };
  const interrupts = cpu === undefined ? undefined : interruptStack(kernel, cpu);
  const start = cpu === undefined ? startOffCpu(kernel, task) : startOnCpu(kernel, task, cpu);
  if (typeof start === 'string') return { frames: [], end: { why: start } };
  return unwind(kernel, start, {
    stacks: interrupts === undefined ? [own] : [interrupts, own],
    userRegisters: taskPtRegs(kernel, stack).address,
    moduleArch,
  });
}
