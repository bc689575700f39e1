import { BEGINNING, kernelStack } from '../../linux/readers/kernel-stack.ts';
import type { Task } from '../../linux/sched.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { ThreadOwner } from './interrupted-call.ts';
import { isClone } from './syscall-table.ts';
import { canPatch, isReadable, type MemoryPatch } from './timeout.ts';

/**
 * A thread that was made and has not been in user mode yet may still have to write its number to its own
 * memory: CLONE_CHILD_SETTID, by schedule_tail (kernel/sched/core.c). That is done for it here; to write it
 * again does no harm. The kernel writes nothing where it must not. Where its kernel stack does not tell that
 * it is such a one (on a CPU that panicked in an NMI), the result of its call does, which is 0 for nobody
 * else.
 *
 * @param cpu the CPU that was using the thread's stack
 * @param call the call that its registers are of, and its result: a new thread has the registers of the one
 * that made it, but for the result
 */
export function settleNewThread(
  kernel: Kernel,
  task: Task,
  cpu: number | undefined,
  call: { readonly name: string | undefined; readonly result: bigint },
  owner: Pick<ThreadOwner, 'vmas' | 'user' | 'patches' | 'findings'>,
): void {
  const address = Number(task.set_child_tid);
  if (address === 0 || call.name === undefined || !isClone(call.name)) return;
  const { frames, end } = kernelStack(kernel, task, cpu);
  const isNew = frames.some((frame) => BEGINNING.has(frame.function));
  if (!isNew && (end !== 'unknown' || call.result !== 0n)) return;
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(task.pid);
  const patch: MemoryPatch = { address, bytes };
  const area = owner.vmas.find(({ start, end }) => address >= start && address + 4 <= end);
  if (area === undefined || (area.prot & 2) === 0) return;
  if (canPatch(owner.vmas, patch) && isReadable(owner.user, patch)) owner.patches.push(patch);
  else
    owner.findings.reasons.push(
      `thread ${task.pid} had not run yet, and its number cannot be written where it is to find it`,
    );
}
