import { hex, VmcoreError } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { ORC_REG, type OrcEntry, orcFind } from './orc.ts';
import { ptRegsStruct } from './ptrace.ts';

/** Frames of the deepest stacks that there are, several times over. */
const MAX_FRAMES = 256;
const WORD = 8n;
/** What the processor itself puts down of pt_regs: ip to ss (IRET_FRAME_SIZE). */
const IRET_WORDS = 5n;
/** Bits of a selector that tell user mode from kernel mode. */
const PRIVILEGE = 3n;

/**
 * Code into which the tracers of functions change return addresses (kernel/trace/fgraph.c,
 * kernel/trace/rethook.c): the caller is in a table of theirs.
 */
const TRACERS = ['return_to_handler', 'arch_rethook_trampoline', '__kretprobe_trampoline'];

/** One place in the code that a stack tells of. */
export interface UnwoundFrame {
  /** Where it goes on: a return address, or the instruction that was interrupted. */
  readonly ip: bigint;
  /** The stack pointer there. */
  readonly sp: bigint;
  /** An exception or an interrupt came here, or the processor was here: no call has been made. */
  readonly isInterrupted: boolean;
}

/** What is found on a stack, innermost first, and how that ends. */
export interface Unwound {
  readonly frames: readonly UnwoundFrame[];
  /** The registers of user mode; the end of the stack of a kernel thread; or why it cannot be told. */
  readonly end: 'user' | 'kernel-thread' | { readonly why: string };
}

/** A part of memory that is a stack. */
export interface StackArea {
  readonly start: bigint;
  readonly end: bigint;
}

/** Where an unwinding starts. */
export interface UnwindStart {
  readonly ip: bigint;
  readonly sp: bigint;
  readonly bp: bigint;
  /** Registers of a processor that was stopped at `ip`, by the names of user_regs_struct. */
  readonly registers: Readonly<Record<string, bigint>> | undefined;
}

/** What an unwinding has to know of the task. */
export interface UnwindBounds {
  /** The stacks that may be used, in the order in which the kernel leaves them: the task's is the last. */
  readonly stacks: readonly StackArea[];
  /** Address of the user registers at the end of the task's stack. */
  readonly userRegisters: bigint;
  /** The `struct mod_arch_specific` of the module that an address is in. */
  readonly moduleArch: (ip: bigint) => bigint | undefined;
}

/** Ends an unwinding: the message is the end of a sentence. */
class Lost extends Error {}

type Registers = (name: 'bp' | 'r10' | 'r13' | 'di' | 'dx') => bigint | undefined;

interface State {
  ip: bigint;
  sp: bigint;
  bp: bigint;
  signal: boolean;
  /** Registers of the frame, where an exception has put them down. */
  registers: Registers | undefined;
  /** Whether those are all, and not what the processor itself puts down (RIP, CS, RFLAGS, RSP, SS) only. */
  isFull: boolean;
  previous: Registers | undefined;
  stack: StackArea;
}

/**
 * Walks a kernel stack by the ORC tables, as unwind_next_frame (arch/x86/kernel/unwind_orc.c) does, but
 * without any of its guesses: what no table tells is the end.
 */
export function unwind(kernel: Kernel, start: UnwindStart, bounds: UnwindBounds): Unwound {
  const frames: UnwoundFrame[] = [];
  try {
    const stack = stackOf(bounds, start.sp);
    if (stack === undefined) throw new Lost(`the stack pointer ${hex(start.sp)} is on no stack of it`);
    const { registers } = start;
    const state: State = {
      ...{ ip: start.ip, sp: start.sp, bp: start.bp, stack, previous: undefined },
      signal: registers !== undefined || start.ip === entryOfNewTask(kernel),
      registers: registers && ((name) => registers[name]),
      isFull: registers !== undefined,
    };
    const tracers = new Set(TRACERS.map((name) => kernel.symbolMaybe(name)));
    while (frames.length < MAX_FRAMES) {
      if (tracers.has(state.ip)) throw new Lost('a function on it is being traced');
      frames.push({ ip: state.ip, sp: state.sp, isInterrupted: state.signal });
      const end = next(kernel, state, bounds);
      if (end !== undefined) return { frames, end };
    }
    throw new Lost(`it has more than ${MAX_FRAMES} frames`);
  } catch (error) {
    if (!(error instanceof Lost) && !(error instanceof VmcoreError)) throw error;
    return { frames, end: { why: error.message } };
  }
}

/** 6.5 renamed it. */
function entryOfNewTask(kernel: Kernel): bigint | undefined {
  return kernel.symbolMaybe('ret_from_fork_asm') ?? kernel.symbolMaybe('ret_from_fork');
}

function stackOf({ stacks }: UnwindBounds, address: bigint): StackArea | undefined {
  return stacks.find(({ start, end }) => address >= start && address < end);
}

/** A word of a stack. Throws a Lost if it is on none. */
function load(kernel: Kernel, bounds: UnwindBounds, address: bigint, words = 1n): bigint {
  const stack = stackOf(bounds, address);
  if (stack === undefined || address + words * WORD > stack.end || address % WORD !== 0n)
    throw new Lost(`${hex(address)} is on no stack of it`);
  return kernel.memory.u64(address);
}

/** Goes on to the caller, or to what was interrupted; how the stack ends if it does. */
function next(kernel: Kernel, state: State, bounds: UnwindBounds): 'user' | 'kernel-thread' | undefined {
  const at = state.signal ? state.ip : state.ip - 1n;
  const entry = orcFind(kernel, at, bounds.moduleArch(at));
  if (typeof entry === 'string') throw new Lost(`of ${hex(at)} the kernel does not tell the stack: ${entry}`);
  if (entry.type === 'undefined') throw new Lost(`the kernel does not tell the stack at ${hex(at)}`);
  if (entry.type === 'end') return 'kernel-thread';
  const before = state.sp;
  const sp = previousStack(kernel, state, entry, bounds);
  const isInterrupted = entry.type !== 'call';
  if (isInterrupted) {
    if (enterRegisters(kernel, state, entry, sp, bounds) === 'user') return 'user';
  } else {
    state.ip = load(kernel, bounds, sp - WORD);
    state.sp = sp;
  }
  state.bp = previousBase(kernel, state, entry, sp, bounds);
  if (!isInterrupted) {
    state.registers = undefined;
    state.previous = undefined;
    state.isFull = false;
  }
  // Nothing has called what a new task begins with, whoever returns to it.
  state.signal = (entry.signal ?? isInterrupted) || state.ip === entryOfNewTask(kernel);
  advance(state, before, bounds);
  return undefined;
}

/** A stack goes on upwards, or on the next one; nothing goes back. */
function advance(state: State, before: bigint, bounds: UnwindBounds): void {
  // What a call leaves may be the very end of a stack.
  const stack = stackOf(bounds, state.sp) ?? stackOf(bounds, state.sp - WORD);
  if (stack === undefined) throw new Lost(`${hex(state.sp)} is on no stack of it`);
  const isBack = bounds.stacks.indexOf(stack) < bounds.stacks.indexOf(state.stack);
  if (isBack || (stack === state.stack && state.sp <= before)) throw new Lost('it goes the wrong way');
  state.stack = stack;
}

function registerOf({ registers, isFull, previous }: State, name: 'r10' | 'r13' | 'di' | 'dx'): bigint {
  const value = (isFull ? registers : previous)?.(name);
  if (registers === undefined || value === undefined) throw new Lost(`the register ${name} is not on it`);
  return value;
}

function previousStack(kernel: Kernel, state: State, entry: OrcEntry, bounds: UnwindBounds): bigint {
  const offset = BigInt(entry.spOffset);
  switch (entry.spReg) {
    case ORC_REG.sp:
      return state.sp + offset;
    case ORC_REG.bp:
      return state.bp + offset;
    case ORC_REG.spIndirect:
      return load(kernel, bounds, state.sp) + offset;
    case ORC_REG.bpIndirect:
      return load(kernel, bounds, state.bp + offset);
    case ORC_REG.r10:
      return registerOf(state, 'r10');
    case ORC_REG.r13:
      return registerOf(state, 'r13');
    case ORC_REG.di:
      return registerOf(state, 'di');
    case ORC_REG.dx:
      return registerOf(state, 'dx');
    default:
      throw new Lost(`an ORC entry goes by the register ${entry.spReg}`);
  }
}

/** Goes on at the registers that an exception has put down. */
function enterRegisters(
  kernel: Kernel,
  state: State,
  { type }: OrcEntry,
  sp: bigint,
  bounds: UnwindBounds,
): 'user' | 'kernel' {
  const bound = kernel.bind(ptRegsStruct);
  const isWhole = type === 'regs';
  const address = isWhole ? sp : sp - BigInt(bound.offsetOf('ip'));
  load(kernel, bounds, sp, isWhole ? BigInt(bound.size) / WORD : IRET_WORDS);
  const view = bound.at(address);
  if ((view.cs & PRIVILEGE) !== 0n) {
    if (address === bounds.userRegisters) return 'user';
    throw new Lost(`it ends at user registers at ${hex(address)}, which are not the task's`);
  }
  if (state.isFull) state.previous = state.registers;
  if (isWhole) state.previous = undefined;
  state.registers = (name) => view[name];
  state.isFull = isWhole;
  state.ip = view.ip;
  state.sp = view.sp;
  return 'kernel';
}

function previousBase(
  kernel: Kernel,
  state: State,
  entry: OrcEntry,
  sp: bigint,
  bounds: UnwindBounds,
): bigint {
  const offset = BigInt(entry.bpOffset);
  switch (entry.bpReg) {
    case ORC_REG.undefined:
      if (entry.type === 'call') return state.bp;
      return (state.isFull ? state.registers : state.previous)?.('bp') ?? state.bp;
    case ORC_REG.prevSp:
      return load(kernel, bounds, sp + offset);
    case ORC_REG.bp:
      return load(kernel, bounds, state.bp + offset);
    default:
      throw new Lost(`an ORC entry has the frame pointer by the register ${entry.bpReg}`);
  }
}
