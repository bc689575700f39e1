import { taskPtRegs } from '../../linux/arch/index.ts';
import type { Task } from '../../linux/sched.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { ENOSYS } from './syscall.ts';
import { takesDescriptor } from './syscall-table.ts';

/** A system call that has no result yet. */
export interface UnfinishedCall {
  readonly name: string;
  /** The descriptor that it was made on, if it has one as first argument. */
  readonly fd: number | undefined;
}

/**
 * The call that a thread is in and that has no result yet, by what it put on its kernel stack as it entered
 * the kernel. What it has put there of a call before has its result. Throws a VmcoreError.
 */
export function unfinishedCall(kernel: Kernel, { stack }: Pick<Task, 'stack'>): UnfinishedCall | undefined {
  const { orig_ax, ax, di } = taskPtRegs(kernel, stack);
  const number = Number(BigInt.asIntN(64, orig_ax));
  if (number < 0 || BigInt.asIntN(64, ax) !== ENOSYS) return undefined;
  const name = kernel.architecture.systemCalls.name(number);
  return { name, fd: takesDescriptor(name) ? Number(BigInt.asIntN(32, di)) : undefined };
}
