import { ioContextStruct } from '../linux/iocontext.ts';
import { allowedCpus, type Task } from '../linux/sched.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** ioprio_set(2); undefined for a thread that has none of its own. */
export function ioPriorityOf(kernel: Kernel, task: Task): number | undefined {
  if ((task.io_context ?? 0n) === 0n) return undefined;
  const { ioprio } = kernel.bind(ioContextStruct).at(task.io_context ?? 0n);
  return ioprio === 0 ? undefined : ioprio;
}

/** Undefined for a thread that may use every CPU. */
export function affinityOf(kernel: Kernel, task: Task): readonly number[] | undefined {
  const cpus = allowedCpus(kernel, task);
  return kernel.cpus.every((cpu) => cpus.includes(cpu)) ? undefined : cpus;
}
