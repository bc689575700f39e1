import { apicIdOf } from '../../linux/arch/index.ts';
import { fpregsOwner } from '../../linux/arch/x86/fpu.ts';
import { taskPtRegs } from '../../linux/arch/x86/ptrace.ts';
import { cpuNoteOf } from '../../linux/current.ts';
import type { Task } from '../../linux/sched.ts';
import { nothingSaved, type SavedCpu, type StageZeroResult, savedState } from '../../stage-zero/saved.ts';
import { hex, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/** A processor's own registers at the end, for the task that it was executing. */
export interface LiveRegisters {
  /**
   * All that it had. The user's GS base and key rights (PKRU) stay in it all through the kernel, whoever its
   * vector registers belong to.
   */
  readonly processor: SavedCpu | undefined;
  /** The same, if the vector registers are certainly the task's; they are the newest then. */
  readonly saved: SavedCpu | undefined;
  /** Why they are not: the end of a sentence. */
  readonly why: string;
}

/** What stage zero saved of the processors, and whose it is. */
export class LiveCpus {
  readonly #kernel: Kernel;
  #result: StageZeroResult | undefined | 'not read' = 'not read';

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Undefined where there was no stage zero. */
  get result(): StageZeroResult | undefined {
    if (this.#result === 'not read') this.#result = stageZeroResult(this.#kernel);
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
    const without = (why: string, processor?: SavedCpu): LiveRegisters => ({
      processor,
      saved: undefined,
      why,
    });
    if (result === undefined) return without('are lost');
    try {
      const apicId = apicIdOf(this.#kernel, cpu);
      const processor = result.cpus.get(apicId);
      if (processor === undefined) return without(whyNot(result, apicId));
      const against = contradiction(this.#kernel, cpu, task);
      if (against !== undefined) return without(`cannot be told: ${against}`, processor);
      return { processor, saved: processor, why: '' };
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return without(`cannot be told: ${error.message}`);
    }
  }
}

/**
 * What stage zero left; undefined where there was none. Whatever is wrong with it is told in the result: no
 * thread but those that were on a CPU needs it.
 */
export function stageZeroResult(kernel: Kernel): StageZeroResult | undefined {
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

/**
 * By /proc/sys/kernel/random/boot_id (drivers/char/random.c). Where the kernel does not show it, the note
 * that led to the area is what tells: the crash kernel got it from the kernel that died.
 */
function isOfThisBoot(kernel: Kernel, bootId: Buffer): boolean {
  const symbol = kernel.symbolMaybe('sysctl_bootid');
  return symbol === undefined || kernel.memory.read(symbol, bootId.length).equals(bootId);
}

function whyNot({ phase, problems }: StageZeroResult, apicId: number): string {
  // What is said of another processor is not the reason.
  const own = problems.filter((problem) => Number(/APIC id (\d+)/.exec(problem)?.[1] ?? apicId) === apicId);
  if (own.length > 0) return `are lost: ${own.join('; ')}`;
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
