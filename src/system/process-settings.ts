import { libcFunction } from './libc.ts';

/** sched_setaffinity takes a mask of this many bytes: 1024 CPUs. */
const CPU_SET_BYTES = 128;
/** Number of x86-64. */
const SYS_ioprio_set = 251;
const IOPRIO_WHO_PROCESS = 1;

const schedSetaffinity = libcFunction<[tid: number, size: number, mask: Uint8Array]>(
  'int sched_setaffinity(int pid, size_t size, void *mask)',
);
const syscall = libcFunction<[number: number, which: number, who: number, priority: number]>(
  'long syscall(long number, long which, long who, long priority)',
);

/** personality(2) of this process; what it forks inherits it. @returns the one before */
export const personality = libcFunction<[persona: number]>('int personality(unsigned long persona)');

/**
 * Lets a thread run on these CPUs alone (sched_setaffinity(2)).
 * @returns 0, or an errno with its sign changed
 */
export function setAffinity(tid: number, cpus: readonly number[]): number {
  const mask = Buffer.alloc(CPU_SET_BYTES);
  for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
  return schedSetaffinity(tid, CPU_SET_BYTES, mask);
}

/**
 * Gives a thread an I/O priority, with its class (ioprio_set(2)).
 * @returns 0, or an errno with its sign changed
 */
export function setIoPriority(tid: number, priority: number): number {
  return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, priority);
}
