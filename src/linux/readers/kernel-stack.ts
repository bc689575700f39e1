import { hex, readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { searchSymbol } from '../../vmcore/symbols.ts';
import { calledFunction, plainName, taskStack } from '../arch/index.ts';
import { type Module, moduleOf, moduleSymbols, readModules } from '../module.ts';
import type { Task } from '../sched.ts';

/** One function on a kernel stack. */
export interface StackFrame {
  /** Where it goes on: a return address, or the instruction that was interrupted. */
  readonly ip: bigint;
  /** The stack pointer there. */
  readonly sp: bigint;
  /** An exception or an interrupt came here, or the processor was here. */
  readonly isInterrupted: boolean;
  /**
   * The function that it is in, without what the compiler added to its name; one of a module with the
   * module's name: `jbd2:start_this_handle`. Undefined where that cannot be told.
   */
  readonly function: string | undefined;
  /**
   * The function of the kernel proper that it has called and that has not returned; `indirect`: through a
   * pointer; undefined where it made no call, or where that cannot be told.
   */
  readonly calls: string | undefined;
}

/** What is on the kernel stack of a task, innermost first. */
export interface KernelStack {
  readonly frames: readonly StackFrame[];
  /** How it ends: at the registers of user mode, where a kernel thread began, or nobody knows where. */
  readonly end: 'user' | 'kernel-thread' | 'unknown';
  /** Why nobody knows; the frames before are certain all the same. */
  readonly why: string | undefined;
}

/** Where a task begins (arch/x86/entry/entry_64.S); 6.5 put the assembler's part under a name of its own. */
export const BEGINNING: ReadonlySet<string | undefined> = new Set(['ret_from_fork', 'ret_from_fork_asm']);

/** A call through a pointer, in {@link StackFrame.calls}. */
export const INDIRECT = 'indirect';

const modulesOf = new WeakMap<Kernel, readonly Module[]>();

/** The modules that were loaded, as far as their list can be read. */
export function loadedModules(kernel: Kernel): readonly Module[] {
  const known = modulesOf.get(kernel);
  if (known !== undefined) return known;
  const found = readable(() => readModules(kernel).modules) ?? [];
  modulesOf.set(kernel, found);
  return found;
}

/**
 * Unwinds the kernel stack of a task exactly: nothing on it is guessed.
 *
 * @param cpu the CPU that was executing the task; undefined if none was. Of the CPU that panicked nothing
 * tells where in its call the task was
 */
export function kernelStack(kernel: Kernel, task: Task, cpu: number | undefined): KernelStack {
  try {
    const { frames, end } = taskStack(kernel, task, cpu, (ip) => moduleOf(loadedModules(kernel), ip)?.arch);
    return {
      frames: frames.map((frame) => named(kernel, frame)),
      end: typeof end === 'string' ? end : 'unknown',
      why: typeof end === 'string' ? undefined : end.why,
    };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { frames: [], end: 'unknown', why: error.message };
  }
}

interface ModuleNames {
  readonly addresses: readonly bigint[];
  readonly names: readonly string[];
}

const namesOf = new WeakMap<Module, ModuleNames>();

/** A module's symbols by their addresses; none if its table is damaged. */
function moduleNames(kernel: Kernel, module: Module): ModuleNames {
  const known = namesOf.get(module);
  if (known !== undefined) return known;
  const symbols = readable(() => [...moduleSymbols(kernel, module)]) ?? [];
  symbols.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
  const found = { addresses: symbols.map(({ address }) => address), names: symbols.map(({ name }) => name) };
  namesOf.set(module, found);
  return found;
}

/** The symbol of a module that an address belongs to. */
function symbolIn(
  kernel: Kernel,
  module: Module,
  address: bigint,
): { name: string; offset: number } | undefined {
  const { addresses, names } = moduleNames(kernel, module);
  const symbol = searchSymbol(
    addresses.length,
    (index) => addresses[index] ?? 0n,
    (index) => names[index] ?? '',
    address,
  );
  const area = module.areas.find(({ start, end }) => address >= start && address < end);
  return symbol && area && address - BigInt(symbol.offset) >= area.start ? symbol : undefined;
}

function named(kernel: Kernel, frame: Pick<StackFrame, 'ip' | 'sp' | 'isInterrupted'>): StackFrame {
  const { ip, isInterrupted } = frame;
  // A call at a function's end returns behind it.
  const at = isInterrupted ? ip : ip - 1n;
  const module = moduleOf(loadedModules(kernel), at);
  const symbol = module === undefined ? kernel.symbolAt(at) : symbolIn(kernel, module, at);
  const prefix = module === undefined ? '' : `${module.name}:`;
  const called = isInterrupted ? undefined : calledFunction(kernel, ip);
  return {
    ...frame,
    function: symbol && `${prefix}${plainName(symbol.name)}`,
    calls: called === 'indirect' ? INDIRECT : called?.name,
  };
}

/** A frame as the kernel prints it: `vfs_read+0x1b2`, `ext4_sync_file+0x10 [ext4]`. */
export function frameText(kernel: Kernel, { ip, isInterrupted }: StackFrame): string {
  const back = isInterrupted ? 0n : 1n;
  const module = moduleOf(loadedModules(kernel), ip - back);
  const symbol = module === undefined ? kernel.symbolAt(ip - back) : symbolIn(kernel, module, ip - back);
  const name = symbol && `${symbol.name}+0x${(BigInt(symbol.offset) + back).toString(16)}`;
  return `${name ?? hex(ip)}${module === undefined ? '' : ` [${module.name}]`}`;
}
