import type { CpuNote } from '../vmcore/elf-notes.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';
import { rqStruct, taskAt } from './sched.ts';

export const pcpuHot = struct('pcpu_hot', { current_task: pointer, hardirq_stack_ptr: pointer });

/** The task that a CPU was executing: 6.2 moved `current_task` into the per-CPU `pcpu_hot`. */
export function currentTask(kernel: Kernel, cpu: number): bigint {
  const hot = kernel.symbolMaybe('pcpu_hot');
  if (hot !== undefined) return kernel.bind(pcpuHot).at(kernel.perCpu(hot, cpu)).current_task;
  return kernel.memory.pointer(kernel.perCpu('current_task', cpu));
}

/** The CPU on which panic() ran, or undefined if the kernel had not panicked (a dump of a living guest). */
export function panicCpu(kernel: Kernel): number | undefined {
  const cpu = kernel.memory.s32(kernel.symbol('panic_cpu'));
  return cpu >= 0 ? cpu : undefined;
}

/** The tasks that were executing on a CPU, and how sure that is. */
export interface RunningTasks {
  /** By the address of the task_struct. */
  readonly cpuOf: ReadonlyMap<bigint, number>;
  /** CPUs of which nothing tells what they were executing. */
  readonly unknown: readonly number[];
}

/**
 * The task that was executing on each CPU. A task that does not itself say so (`on_cpu`) is not believed; the
 * CPU's run queue is asked then. Throws a VmcoreError only if it cannot be told which CPUs there were.
 */
export function runningTasks(kernel: Kernel): RunningTasks {
  const cpuOf = new Map<bigint, number>();
  const unknown: number[] = [];
  for (const cpu of kernel.cpus) {
    const task =
      executing(kernel, () => currentTask(kernel, cpu)) ??
      executing(kernel, () => kernel.bind(rqStruct).at(kernel.perCpu('runqueues', cpu)).curr);
    if (task === undefined) unknown.push(cpu);
    else cpuOf.set(task, cpu);
  }
  return { cpuOf, unknown };
}

function executing(kernel: Kernel, read: () => bigint): bigint | undefined {
  try {
    const task = read();
    return taskAt(kernel, task).on_cpu === 0 ? undefined : task;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}

/**
 * What the dump has of a CPU's registers; undefined if there is no note that can be told to be this CPU's.
 * `pid` is the task's that the CPU was executing: the crash note names it, QEMU's does not and is in the
 * order of CPUs.
 */
export function cpuNoteOf(kernel: Kernel, cpu: number, pid: number): CpuNote | undefined {
  const byPid = kernel.cpuNotes.filter((note) => note.pid === pid && pid !== 0);
  const byOrder =
    kernel.cpuNotes.length === kernel.cpus.length ? kernel.cpuNotes[kernel.cpus.indexOf(cpu)] : undefined;
  return byPid.length === 1 ? byPid[0] : byOrder;
}

/**
 * Whether a CPU was in user mode at the end, from its NT_PRSTATUS note; undefined if there is none ({@link
 * cpuNoteOf}).
 */
export function wasInUserMode(kernel: Kernel, cpu: number, pid: number): boolean | undefined {
  const note = cpuNoteOf(kernel, cpu, pid);
  return note === undefined ? undefined : kernel.architecture.notes.isUserMode(note.registers);
}
