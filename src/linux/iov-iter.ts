import type { Kernel } from '../vmcore/kernel.ts';
import { struct, u64 } from '../vmcore/view.ts';
import { taskPtRegs } from './arch/x86/ptrace.ts';
import type { Task } from './sched.ts';

/**
 * `struct iov_iter` (include/linux/uio.h): the members that tell one user buffer (ITER_UBUF, since 6.0) from
 * others.
 */
export const iovIterStruct = struct('iov_iter', { iov_offset: u64, count: u64, ubuf: u64 });

/** Kernel stacks are 16 KiB. */
const MAX_STACK = 16384n;

/**
 * How many bytes of a read or write have been moved: the kernel keeps count in a `struct iov_iter` on the
 * task's kernel stack, recognised by the buffer's address together with the sum of what is done and what is
 * left. Only for a task that is not executing. Returns undefined if there is no such structure, or if several
 * disagree.
 */
export function transferProgress(
  kernel: Kernel,
  task: Task,
  direction: 'read' | 'write',
  buffer: bigint,
  length: bigint,
): number | undefined {
  const iter = kernel.bind(iovIterStruct);
  if (!kernel.hasMember('iov_iter', 'ubuf')) return undefined;
  const ubufType = kernel.enumerator('ITER_UBUF');
  const offset = (member: string) => iter.offsetOf(member);
  const low = task.thread.sp;
  const high = taskPtRegs(kernel, task.stack).address;
  if (low >= high || high - low > MAX_STACK) return undefined;
  const stack = kernel.memory.read(low, Number(high - low));
  const found = new Set<bigint>();
  for (let at = 0; at + iter.size <= stack.length; at += 8) {
    if (stack.readBigUInt64LE(at + offset('ubuf')) !== buffer) continue;
    if (stack[at + offset('iter_type')] !== ubufType) continue;
    if ((stack[at + offset('data_source')] === 1) !== (direction === 'write')) continue;
    const done = stack.readBigUInt64LE(at + offset('iov_offset'));
    if (done + stack.readBigUInt64LE(at + offset('count')) === length) found.add(done);
  }
  const [done] = found;
  return found.size === 1 && done !== undefined ? Number(done) : undefined;
}
