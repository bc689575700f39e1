import { x86_64 } from '../../../arch/x86-64/index.ts';
import { USER_CS, USER_DS } from '../../../arch/x86-64/registers.ts';
import { readable, VmcoreError } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import type { Task } from '../../sched.ts';
import { NotFollowed } from './entry/instruction.ts';
import { type Area, EntryMemory } from './entry/memory.ts';
import { REGISTERS } from './entry/operands.ts';
import { type EntryEnd, type EntryText, isHelper, runEntry } from './entry/run.ts';
import { type PtRegs, ptRegsStruct, taskPtRegs, threadSize } from './ptrace.ts';
import { interruptStack } from './task-stack.ts';

/** Registers as in `struct pt_regs`, wherever they are. */
export type UserPtRegs = Omit<PtRegs, 'address'>;

/** A processor's registers at one instruction, by the names of `struct user_regs_struct`. */
export type ProcessorRegisters = Readonly<Record<string, bigint>>;

/** What becomes of a task whose processor was in the kernel's entry code, if this goes on to its end. */
export type EntryOutcome =
  /** It would be, or go on, in user mode with these registers. */
  | {
      readonly kind: 'user';
      readonly registers: UserPtRegs;
      /** It was about to make a system call, or has just ended one. */
      readonly isAtCall: boolean;
      /** The processor had the user's GS base, not the kernel's. */
      readonly hasUserGs: boolean;
    }
  /** The kernel itself was interrupted: what is on the task's stack counts. */
  | { readonly kind: 'kernel'; readonly ip: bigint }
  /** Nobody can tell; the end of a sentence. */
  | { readonly kind: 'unknown'; readonly why: string };

const NAMES = [
  ...(['r15', 'r14', 'r13', 'r12', 'bp', 'bx', 'r11', 'r10', 'r9', 'r8', 'ax', 'cx', 'dx'] as const),
  ...(['si', 'di', 'orig_ax', 'ip', 'cs', 'flags', 'sp', 'ss'] as const),
] as const;
/** Bits of a selector that tell user mode from kernel mode. */
const PRIVILEGE = 3n;
const SELECTOR = 0xffffn;
const NO_CALL = 0xffff_ffff_ffff_ffffn;
const ENOSYS = BigInt.asUintN(64, -38n);

/**
 * Where the 64-bit task-state segment has the stack pointers that the processor takes (SDM 3, 8.7): the
 * second is the end of the entry stack (`cpu_entry_area.entry_stack_page`), a page.
 */
const TSS_SP0 = 4n;
const ENTRY_STACK_BYTES = 4096n;

/**
 * Exceptions that come again if the instruction is executed again, and interrupts, which nobody waits for in
 * another kernel. Not among them are those behind an instruction (INT3, INTO, single steps), and those with a
 * stack of their own.
 */
const FAULTS: ReadonlySet<string> = new Set(
  `exc_page_fault exc_general_protection exc_divide_error exc_invalid_op exc_device_not_available exc_bounds
  exc_invalid_tss exc_segment_not_present exc_stack_segment exc_alignment_check exc_simd_error
  exc_coprocessor_error exc_control_protection exc_nmi`.split(/\s+/),
);
const INTERRUPTS = /^(sysvec_\w+|common_interrupt|spurious_interrupt)$/;

/** The entry text of a kernel; undefined where the kernel does not show it. */
export function entryText(kernel: Kernel): EntryText | undefined {
  const start = kernel.symbolMaybe('__entry_text_start');
  const end = kernel.symbolMaybe('__entry_text_end');
  if (start === undefined || end === undefined) return undefined;
  return { start, end, functionAt: (address) => kernel.symbolAt(address) };
}

/** The stack that a CPU begins on when it comes from user mode; undefined where that cannot be told. */
export function entryStack(kernel: Kernel, cpu: number): Area | undefined {
  const end = readable(() => kernel.memory.u64(kernel.perCpu('cpu_tss_rw', cpu) + TSS_SP0));
  return end === undefined ? undefined : { start: end - ENTRY_STACK_BYTES, end };
}

/**
 * Whether a CPU was on its way into or out of the kernel: in the entry text, on the stack that belongs to it
 * alone, or in what it calls and nobody else does.
 */
export function isInEntry(kernel: Kernel, text: EntryText, cpu: number, ip: bigint, sp: bigint): boolean {
  if ((ip >= text.start && ip < text.end) || text.functionAt(ip)?.name === 'sync_regs') return true;
  const stack = entryStack(kernel, cpu);
  return stack !== undefined && sp > stack.start && sp <= stack.end;
}

function unknown(why: string): EntryOutcome {
  return { kind: 'unknown', why };
}

/** The user's registers of a task on a CPU, from those of its processor in the entry code. */
export function entryOutcome(
  kernel: Kernel,
  text: EntryText,
  cpu: number,
  task: Task,
  registers: ProcessorRegisters,
): EntryOutcome {
  try {
    const stack = entryStack(kernel, cpu);
    if (stack === undefined) return unknown('the kernel does not show its entry stack');
    const own = { start: task.stack, end: task.stack + BigInt(threadSize(kernel)) };
    const interrupts = interruptStack(kernel, cpu);
    const memory = new EntryMemory(kernel, cpu, [own, stack, ...(interrupts ? [interrupts] : [])]);
    const end = runEntry(text, memory, requireAll(registers));
    return end.kind === 'entered' ? entered(kernel, text, task, memory, end) : left(kernel, text, task, end);
  } catch (error) {
    if (!(error instanceof NotFollowed) && !(error instanceof VmcoreError)) throw error;
    return unknown(error.message);
  }
}

const GENERAL = [...REGISTERS, 'ip', 'flags'] as const;

function requireAll(registers: ProcessorRegisters): Record<(typeof GENERAL)[number], bigint> {
  return byNames(GENERAL, (name) => {
    const found = registers[name];
    if (found === undefined) throw new NotFollowed(`the register ${name} is not known`);
    return found;
  });
}

/** The kernel was interrupted at `ip`, and goes on there. */
function inKernel(text: EntryText, ip: bigint): EntryOutcome {
  const isEntry = (ip >= text.start && ip < text.end) || isHelper(text, ip);
  const isSwitch = /^__switch_to/.test(text.functionAt(ip)?.name ?? '');
  if (isEntry || isSwitch) return unknown('an exception has come on the way');
  return { kind: 'kernel', ip };
}

function entered(
  kernel: Kernel,
  text: EntryText,
  task: Task,
  memory: EntryMemory,
  { by, regs, exchanges }: EntryEnd & { kind: 'entered' },
): EntryOutcome {
  const layout = kernel.bind(ptRegsStruct);
  const registers = userRegisters((name) => memory.load(regs + BigInt(layout.offsetOf(name)), 8));
  const isCall = by === 'do_syscall_64';
  if ((registers.cs & PRIVILEGE) === 0n) return inKernel(text, registers.ip);
  if (!isCall && !FAULTS.has(by) && !INTERRUPTS.test(by)) return unknown(`it leads to ${by}`);
  if (regs !== taskPtRegs(kernel, task.stack).address)
    return unknown('it puts registers where those of the task are not');
  if (registers.cs !== USER_CS || registers.ss !== USER_DS)
    return unknown('it puts registers there that are none of 64-bit code');
  const hasUserGs = exchanges % 2 === 1;
  if (!isCall && registers.orig_ax !== NO_CALL) return unknown(`it leads to ${by} with a system call`);
  return { kind: 'user', registers: isCall ? beforeCall(registers) : registers, isAtCall: isCall, hasUserGs };
}

/**
 * A system call that has not begun is made again: the thread is before its instruction. But what
 * restart_syscall(2) goes on with, no other kernel knows.
 */
function beforeCall(registers: UserPtRegs): UserPtRegs {
  const { systemCalls } = x86_64;
  if (isRestart(registers.orig_ax)) return registers;
  const ip = registers.ip - BigInt(systemCalls.instruction.length);
  return { ...registers, ax: registers.orig_ax, orig_ax: NO_CALL, ip };
}

function isRestart(number: bigint): boolean {
  return x86_64.systemCalls.name(Number(BigInt.asIntN(32, number))) === 'restart_syscall';
}

/** Out of the kernel: what the processor takes along is what lies at the end of the task's stack. */
function left(
  kernel: Kernel,
  text: EntryText,
  task: Task,
  { general, frame, exchanges }: EntryEnd & { kind: 'left' },
): EntryOutcome {
  if ((frame.cs & PRIVILEGE) === 0n) return inKernel(text, frame.ip);
  const saved = taskPtRegs(kernel, task.stack);
  const registers = userRegisters((name) => saved[name]);
  const taken: Readonly<Record<string, bigint>> = { ...general, ...frame };
  const other = NAMES.find((name) => name !== 'orig_ax' && taken[name] !== registers[name]);
  if (other !== undefined) return unknown(`it takes another ${other} along than is on the task's stack`);
  const isAtCall = registers.orig_ax !== NO_CALL;
  const hasUserGs = exchanges % 2 === 0;
  return { kind: 'user', registers: afterCall(registers), isAtCall, hasUserGs };
}

/** A thread that is about to make restart_syscall(2) is in that call, as if it had made it. */
function afterCall(registers: UserPtRegs): UserPtRegs {
  const behind = registers.ip + BigInt(x86_64.systemCalls.instruction.length);
  if (registers.orig_ax !== NO_CALL && isRestart(registers.ax) && registers.cx === behind)
    return { ...registers, orig_ax: registers.ax, ax: ENOSYS, ip: behind };
  return { ...registers, orig_ax: NO_CALL };
}

/** With FRED the upper bits of the selector slots are used for other things. */
function userRegisters(value: (name: (typeof NAMES)[number]) => bigint): UserPtRegs {
  const registers = byNames(NAMES, value);
  return { ...registers, cs: registers.cs & SELECTOR, ss: registers.ss & SELECTOR };
}

function byNames<N extends string>(names: readonly N[], value: (name: N) => bigint): Record<N, bigint> {
  return Object.fromEntries(names.map((name) => [name, value(name)])) as Record<N, bigint>;
}
