import { isOnStackOf } from '../../linux/arch/index.ts';
import { exceptionFrame } from '../../linux/arch/x86/cpu-entry-area.ts';
import type { EntryText } from '../../linux/arch/x86/entry/run.ts';
import {
  type EntryOutcome,
  entryOutcome,
  entryText,
  isInEntry,
  type ProcessorRegisters,
} from '../../linux/arch/x86/entry-registers.ts';
import { fpregsOwner, isInKernelFpu } from '../../linux/arch/x86/fpu.ts';
import { cpuNoteOf, panicCpu } from '../../linux/current.ts';
import { hasThreadFlag, type Task, TIF } from '../../linux/sched.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/**
 * Code outside the entry text in which what is on a task's stack is in part another entry's:
 * `fixup_bad_iret` moves registers to the stack (arch/x86/kernel/traps.c), and so does what FRED enters.
 */
const BETWEEN: ReadonlySet<string> = new Set(
  'fixup_bad_iret asm_fred_entrypoint_user asm_fred_entrypoint_kernel'.split(' '),
);
/**
 * In these the processor can have segment bases and key rights of the task that it is not on the stack of.
 */
const SWITCHES: ReadonlySet<string> = new Set(['__switch_to', '__switch_to_asm']);

/** Where the registers of a task are that was executing on a CPU. */
export type RegistersAtEnd =
  /** On its kernel stack. */
  | { readonly kind: 'stack' }
  /** It was on its way into or out of the kernel, and this is what would have become of it. */
  | (EntryOutcome & { readonly kind: 'user' })
  /** Nothing tells them: how a reason goes on. */
  | { readonly kind: 'lost'; readonly why: string };

/** Where in the kernel a processor was, and all of its registers there if they are known. */
interface InKernel {
  readonly ip: bigint;
  readonly sp: bigint;
  readonly registers: ProcessorRegisters | undefined;
  /** Why that cannot be believed. */
  readonly doubt?: string | undefined;
}

/**
 * Where in the kernel a processor was that executed a task: undefined if it was in user mode. The crash note
 * of the one that panicked has registers of panic() itself; if an NMI or another exception with a stack of
 * its own has led there, that has put down where it was at the end of that stack. In the entry code the stack
 * pointer may be the program's, which can be anything.
 */
function whereInKernel(
  kernel: Kernel,
  cpu: number,
  task: Task,
  text: EntryText | undefined,
): InKernel | undefined {
  const registers = cpuNoteOf(kernel, cpu, task.pid)?.registers;
  if (registers?.ip === undefined || kernel.architecture.notes.isUserMode(registers)) return undefined;
  const { ip, sp = 0n } = registers;
  const panicked = readable(() => ({ cpu: panicCpu(kernel) }));
  const isOwn = panicked !== undefined && panicked.cpu !== cpu;
  const isInText = text !== undefined && ip >= text.start && ip < text.end;
  const frame = isOwn && isInText ? undefined : exceptionFrame(kernel, cpu, sp);
  return frame ?? { ip, sp, registers: isOwn ? registers : undefined };
}

/**
 * Where the registers of a task are that was executing on a CPU. Those on its kernel stack are none if it was
 * on its way into or out of the kernel (arch/x86/entry/entry_64.S).
 */
export function registersAtEnd(kernel: Kernel, cpu: number, task: Task): RegistersAtEnd {
  const text = entryText(kernel);
  const where = whereInKernel(kernel, cpu, task, text);
  if (where === undefined) return { kind: 'stack' };
  const lost = (why: string): RegistersAtEnd => ({ kind: 'lost', why: `was on a CPU, ${why}` });
  if (text === undefined)
    return lost('and the kernel does not show where its entry code is: nothing tells its registers');
  const name = kernel.symbolAt(where.ip)?.name ?? '';
  const onItsWay = 'on its way into or out of the kernel: nothing tells its registers';
  if (where.doubt !== undefined) return lost(`${onItsWay} (${where.doubt})`);
  const isOfOther = SWITCHES.has(name) && !isOnStackOf(kernel, task, where.sp);
  if (BETWEEN.has(name) || isOfOther) return lost(`${onItsWay} (it was in ${name})`);
  if (!isInEntry(kernel, text, cpu, task, where)) return { kind: 'stack' };
  if (where.registers === undefined)
    return lost(`${onItsWay} (the dump does not have those of its processor)`);
  const outcome = entryOutcome(kernel, text, cpu, task, where.registers);
  if (outcome.kind === 'user') return outcome;
  return outcome.kind === 'kernel' ? { kind: 'stack' } : lost(`${onItsWay} (${outcome.why})`);
}

/**
 * Whether the kernel was moving a task's vector registers to memory, to use the processor's itself
 * (kernel_fpu_begin), or to change to another task: it says that they are in memory before they are, in the
 * first case always, in the second from 6.16 on.
 */
export function wasSavingRegisters(
  kernel: Kernel,
  { cpu, isLeaving }: { readonly cpu: number; readonly isLeaving: boolean },
  task: Task,
): boolean {
  const claimed = hasThreadFlag(task, TIF.needFpuLoad);
  return claimed && (isLeaving || isInKernelFpu(kernel, cpu)) && fpregsOwner(kernel, cpu) === task.thread.fpu;
}
