import type { Kernel } from '../vmcore/kernel.ts';
import { longNumber, pointer, struct } from '../vmcore/view.ts';

/** `struct percpu_counter` (include/linux/percpu_counter.h). */
export const percpuCounter = struct('percpu_counter', { count: longNumber, counters: pointer });

/** Address of one CPU's copy of dynamically allocated per-CPU memory: per_cpu_ptr(). */
export function perCpuPtr(kernel: Kernel, pointerValue: bigint, cpu: number): bigint {
  return kernel.perCpu(pointerValue, cpu);
}

/**
 * The exact value of a `struct percpu_counter`: the common count and what each CPU has not yet added to it.
 * One that was taken offline has added all (percpu_counter_cpu_dead), one that never was online has none.
 */
export function percpuCounterSum(kernel: Kernel, address: bigint): number {
  const { count, counters } = kernel.bind(percpuCounter).at(address);
  return kernel.possibleCpus.reduce(
    (sum, cpu) => sum + kernel.memory.s32(perCpuPtr(kernel, counters, cpu)),
    count,
  );
}
