import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct, u64 } from '../vmcore/view.ts';
import { perCpuPtr } from './percpu.ts';

/** `struct percpu_ref` (include/linux/percpu-refcount.h). */
export const percpuRef = struct('percpu_ref', { percpu_count_ptr: u64, data: pointer });

/** `struct percpu_ref_data`: `count` is what all CPUs share. */
export const percpuRefData = struct('percpu_ref_data', { count: u64.at('count.counter') });

/** Bits of `percpu_count_ptr`: the CPUs count nothing any more, or the object is going. */
const ATOMIC_OR_DEAD = 3n;
/** What the shared count has on top while the CPUs count for themselves (PERCPU_COUNT_BIAS). */
const BIAS = 1n << 63n;

/**
 * How many references there are to the object of a `struct percpu_ref`: right only while nobody takes or
 * gives one back.
 */
export function percpuRefCount(kernel: Kernel, address: bigint): bigint {
  const { percpu_count_ptr: pointerAndBits, data } = kernel.bind(percpuRef).at(address);
  const shared = kernel.bind(percpuRefData).at(data).count;
  if ((pointerAndBits & ATOMIC_OR_DEAD) !== 0n) return BigInt.asIntN(64, shared);
  const sum = kernel.possibleCpus.reduce(
    (total, cpu) => total + kernel.memory.u64(perCpuPtr(kernel, pointerAndBits, cpu)),
    shared - BIAS,
  );
  return BigInt.asIntN(64, sum);
}
