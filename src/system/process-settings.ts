import { readdirSync } from 'node:fs';
import { checked, libcFunction } from './libc.ts';

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

/** A soft and a hard limit of getrlimit(2): bytes, numbers, or all bits set for none (RLIM_INFINITY). */
export interface ResourceLimit {
  readonly soft: bigint;
  readonly hard: bigint;
}

const prlimit = libcFunction<
  [pid: number, resource: number, wanted: Uint8Array | null, before: Uint8Array | null]
>('int prlimit(int pid, int resource, void *wanted, void *before)');

/** A limit of a process (prlimit(2)). @throws SystemCallError if it is gone */
export function limitOf(pid: number, resource: number): ResourceLimit {
  const limit = Buffer.alloc(16);
  checked('prlimit', prlimit(pid, resource, null, limit));
  return { soft: limit.readBigUInt64LE(0), hard: limit.readBigUInt64LE(8) };
}

/** Gives a process a limit (prlimit(2)). @throws SystemCallError if it is gone, or may not be given it */
export function setLimit(pid: number, resource: number, { soft, hard }: ResourceLimit): void {
  const limit = Buffer.alloc(16);
  limit.writeBigUInt64LE(soft, 0);
  limit.writeBigUInt64LE(hard, 8);
  checked('prlimit', prlimit(pid, resource, limit, null));
}

/** include/uapi/asm-generic/resource.h */
export const RLIMIT_NOFILE = 7;
export const RLIMIT_AS = 9;
/** `unlimited` is the greatest that there is. */
export const RLIM_INFINITY = 2n ** 64n - 1n;
/** Open files that come and go besides those that a step needs. */
const OTHER_FILES = 256;

/**
 * Does a step in which this process, and what it starts, may have so many open files more. Whoever starts
 * first has 4096 at most (INR_OPEN_MAX, include/uapi/linux/fs.h).
 * @throws SystemCallError if the system does not let it have as many (fs.nr_open)
 */
export function withOpenFiles<T>(more: number, step: () => T): T {
  const before = limitOf(0, RLIMIT_NOFILE);
  const needed = BigInt(readdirSync('/proc/self/fd').length + more + OTHER_FILES);
  if (needed <= before.soft) return step();
  setLimit(0, RLIMIT_NOFILE, { soft: needed, hard: needed > before.hard ? needed : before.hard });
  try {
    return step();
  } finally {
    setLimit(0, RLIMIT_NOFILE, before);
  }
}

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

/** Numbers of x86-64. The functions of libc change all threads of a process, the system calls one. */
const [SYS_setresuid, SYS_setresgid] = [117, 119];
const SAME = -1;
const setIds = libcFunction<[number: number, real: number, effective: number, saved: number]>(
  'long syscall(long number, long real, long effective, long saved)',
);

/**
 * Makes system calls of this thread alone as another user. `step` must not wait: it runs in this thread, and
 * nothing else should.
 * @throws SystemCallError if this thread may not become that user
 */
export function asUser<T>(uid: number, gid: number, step: () => T): T {
  checked('setresgid', setIds(SYS_setresgid, SAME, gid, SAME));
  try {
    checked('setresuid', setIds(SYS_setresuid, SAME, uid, SAME));
    try {
      return step();
    } finally {
      checked('setresuid', setIds(SYS_setresuid, SAME, 0, SAME));
    }
  } finally {
    checked('setresgid', setIds(SYS_setresgid, SAME, 0, SAME));
  }
}
