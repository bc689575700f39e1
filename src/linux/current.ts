import type { CpuNote } from '../vmcore/elf-notes.ts';
import { readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';
import { type Task, taskAt } from './sched.ts';

export const pcpuHot = struct('pcpu_hot', { current_task: pointer, hardirq_stack_ptr: pointer });

/** The task that a CPU was executing: 6.2 moved `current_task` into the per-CPU `pcpu_hot`. */
export function currentTask(kernel: Kernel, cpu: number): bigint {
  const hot = kernel.symbolMaybe('pcpu_hot');
  if (hot !== undefined) return kernel.bind(pcpuHot).at(kernel.perCpu(hot, cpu)).current_task;
  return kernel.memory.pointer(kernel.perCpu('current_task', cpu));
}

/**
 * Whether a task itself says that it was on a CPU: that it was on one, and which. It keeps the number
 * (`thread_info.cpu`) until it has left the CPU.
 */
export function saysItIsOn({ on_cpu, cpu: its }: Pick<Task, 'on_cpu' | 'cpu'>, cpu: number): boolean {
  return on_cpu !== 0 && (its === undefined || its === cpu);
}

/** The CPU on which panic() ran, or undefined if the kernel had not panicked (a dump of a living guest). */
export function panicCpu(kernel: Kernel): number | undefined {
  const cpu = kernel.memory.s32(kernel.symbol('panic_cpu'));
  return cpu >= 0 ? cpu : undefined;
}

/**
 * What the dump has of a CPU's registers; undefined if there is no note that can be told to be this CPU's.
 * `pid` is the task's that the CPU was executing: the crash note names it, or, of a CPU that was changing to
 * that task, the one before it, which is believed only if it says so itself. QEMU's note does not name any,
 * and is in the order of CPUs.
 */
export function cpuNoteOf(kernel: Kernel, cpu: number, pid: number): CpuNote | undefined {
  const of = (its: number | undefined): CpuNote[] =>
    kernel.cpuNotes.filter((note) => note.pid === its && its !== 0);
  let byPid = of(pid);
  if (byPid.length === 0) byPid = of(readable(() => pidOfCurrent(kernel, cpu)));
  const byOrder =
    kernel.cpuNotes.length === kernel.cpus.length ? kernel.cpuNotes[kernel.cpus.indexOf(cpu)] : undefined;
  return byPid.length === 1 ? byPid[0] : byOrder;
}

function pidOfCurrent(kernel: Kernel, cpu: number): number | undefined {
  const task = taskAt(kernel, currentTask(kernel, cpu));
  return saysItIsOn(task, cpu) ? task.pid : undefined;
}

/**
 * Whether a CPU was in user mode at the end, from its NT_PRSTATUS note; undefined if there is none ({@link
 * cpuNoteOf}).
 */
export function wasInUserMode(kernel: Kernel, cpu: number, pid: number): boolean | undefined {
  const note = cpuNoteOf(kernel, cpu, pid);
  return note === undefined ? undefined : kernel.architecture.notes.isUserMode(note.registers);
}
