import { apicIdOf } from '../../linux/arch/index.ts';
import { fpregsOwner } from '../../linux/arch/x86/fpu.ts';
import { taskPtRegs } from '../../linux/arch/x86/ptrace.ts';
import { cpuNoteOf } from '../../linux/current.ts';
import type { Task } from '../../linux/sched.ts';
import { nothingSaved, type SavedCpu, type StageZeroResult, savedState } from '../../stage-zero/saved.ts';
import { hex, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/** A processor's own registers at the end, or why there are none: the end of a sentence. */
export type LiveRegisters =
  | { readonly saved: SavedCpu; readonly why?: undefined }
  | { readonly saved?: undefined; readonly why: string };

/**
 * Where the kernel moves a thread's vector registers to memory in the name of code of its own
 * (arch/x86/kernel/fpu/core.c): it says that they are in memory before they are.
 */
const SAVING: ReadonlySet<string> = new Set(['kernel_fpu_begin_mask', 'save_fpregs_to_fpstate']);

/** What stage zero saved of the processors, and whose it is. */
export class LiveCpus {
  readonly #kernel: Kernel;
  #result: StageZeroResult | undefined | 'not read' = 'not read';

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Undefined where there was no stage zero. */
  get result(): StageZeroResult | undefined {
    if (this.#result === 'not read') this.#result = resultOf(this.#kernel);
    return this.#result;
  }

  /**
   * What a processor had that was executing a task, whose registers they are. Each of the kernel's own
   * witnesses has to agree: who the registers in the processor belong to (`fpu_fpregs_owner_ctx`), where the
   * task's were last (`last_cpu`), and the general registers in the crash note against those on the task's
   * stack.
   */
  of(cpu: number, task: Task): LiveRegisters {
    const { result } = this;
    if (result === undefined) return { why: 'are lost' };
    try {
      const apicId = apicIdOf(this.#kernel, cpu);
      const saved = result.cpus.get(apicId);
      if (saved === undefined) return { why: whyNot(result) };
      const against = contradiction(this.#kernel, cpu, task);
      return against === undefined ? { saved } : { why: `cannot be told: ${against}` };
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return { why: `cannot be told: ${error.message}` };
    }
  }
}

/** Whatever is wrong with it is told in the result: no thread but those that computed needs it. */
function resultOf(kernel: Kernel): StageZeroResult | undefined {
  const { notes, physical } = kernel;
  const read = (at: number, length: number): Uint8Array =>
    physical.withView(at, length, (bytes) => Uint8Array.from(bytes));
  try {
    const result = savedState(notes, { read });
    if (result?.bootId === undefined || isOfThisBoot(kernel, result.bootId)) return result;
    return nothingSaved('it was loaded in another boot');
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return nothingSaved(error.message);
  }
}

/** By /proc/sys/kernel/random/boot_id (drivers/char/random.c), where the kernel shows the symbol. */
function isOfThisBoot(kernel: Kernel, bootId: Buffer): boolean {
  const symbol = kernel.symbolMaybe('sysctl_bootid');
  return symbol === undefined || kernel.memory.read(symbol, bootId.length).equals(bootId);
}

function whyNot({ phase, problems }: StageZeroResult): string {
  if (problems.length > 0) return `are lost: ${problems.join('; ')}`;
  if (phase !== 'done') return `are lost: stage zero ended early (${phase})`;
  return 'are lost: the processor could not be asked for them';
}

/** What says that the registers are another's; undefined if nothing does. */
function contradiction(kernel: Kernel, cpu: number, task: Task): string | undefined {
  const owner = fpregsOwner(kernel, cpu);
  if (owner !== task.thread.fpu) return `by fpu_fpregs_owner_ctx they belong to ${hex(owner)}`;
  if (task.thread.lastCpu !== cpu) return `by last_cpu they were on CPU ${task.thread.lastCpu}`;
  const note = cpuNoteOf(kernel, cpu, task.pid);
  if (note === undefined || !kernel.architecture.notes.isUserMode(note.registers)) return undefined;
  const regs = taskPtRegs(kernel, task.stack);
  const names = ['r15', 'r14', 'r13', 'r12', 'bp', 'bx', 'r11', 'r10', 'r9', 'r8', 'ax', 'cx', 'dx'] as const;
  const wrong = [...names, 'si' as const, 'di' as const, 'ip' as const, 'sp' as const].find(
    (name) => note.registers[name] !== regs[name],
  );
  return wrong === undefined ? undefined : `the crash note has another ${wrong} than the task's stack`;
}

/**
 * Whether a processor was on its way into or out of the kernel: what is on the task's stack may then be of
 * an earlier entry, because this one's registers are not there yet (arch/x86/entry/entry_64.S, and
 * sync_regs() in arch/x86/kernel/traps.c).
 */
export function wasEntering(kernel: Kernel, cpu: number, task: Task): boolean {
  const ip = cpuNoteOf(kernel, cpu, task.pid)?.registers.ip;
  const start = kernel.symbolMaybe('__entry_text_start');
  const end = kernel.symbolMaybe('__entry_text_end');
  if (ip === undefined) return false;
  if (start !== undefined && end !== undefined && ip >= start && ip < end) return true;
  return kernel.symbolAt(ip)?.name === 'sync_regs';
}

/**
 * Whether a processor was in the middle of saving the registers of the task that it was executing, so that
 * neither those in memory nor the mark that they are there can be believed.
 */
export function wasSavingRegisters(kernel: Kernel, cpu: number, task: Task): boolean {
  const ip = cpuNoteOf(kernel, cpu, task.pid)?.registers.ip;
  const symbol = ip === undefined ? undefined : kernel.symbolAt(ip);
  return symbol !== undefined && SAVING.has(symbol.name);
}
