import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';

const pcpuHot = struct('pcpu_hot', { current_task: pointer });

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

/** The task that was executing on each CPU, by address of its task_struct. */
export function runningTasks(kernel: Kernel): Map<bigint, number> {
  return new Map(kernel.cpus.map((cpu) => [currentTask(kernel, cpu), cpu]));
}

/** Selector bits that tell user mode from kernel mode. */
const PRIVILEGE = 3n;

/**
 * Whether a CPU was in user mode at the end, from its NT_PRSTATUS note; undefined if there is none that can be told to be this
 * CPU's. `pid` is the task's that the CPU was executing: the crash note names it, QEMU's does not and is in the order of CPUs.
 */
export function wasInUserMode(kernel: Kernel, cpu: number, pid: number): boolean | undefined {
  const byPid = kernel.cpuNotes.filter((note) => note.pid === pid && pid !== 0);
  const byOrder =
    kernel.cpuNotes.length === kernel.cpus.length ? kernel.cpuNotes[kernel.cpus.indexOf(cpu)] : undefined;
  const note = byPid.length === 1 ? byPid[0] : byOrder;
  return note === undefined ? undefined : (note.registers.cs & PRIVILEGE) !== 0n;
}
