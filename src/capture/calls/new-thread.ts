import { kernelStack } from '../../linux/readers/kernel-stack.ts';
import type { Task } from '../../linux/sched.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { ThreadOwner } from './interrupted-call.ts';
import { isClone } from './syscall-table.ts';
import { canPatch, isReadable, type MemoryPatch } from './timeout.ts';

/** Where a task begins (arch/x86/entry/entry_64.S); 6.5 put the assembler's part under a name of its own. */
const BEGINNING: ReadonlySet<string | undefined> = new Set(['ret_from_fork', 'ret_from_fork_asm']);

/**
 * A thread that was made and has not been in user mode yet may still have to write its number to its own
 * memory: CLONE_CHILD_SETTID, by schedule_tail (kernel/sched/core.c). That is done for it here; to write it
 * again does no harm. The kernel writes nothing where it must not.
 *
 * @param cpu the CPU that was executing the thread
 * @param call the call that its registers are of: a new thread has those of the thread that made it
 */
export function settleNewThread(
  kernel: Kernel,
  task: Task,
  cpu: number | undefined,
  call: string | undefined,
  owner: Pick<ThreadOwner, 'vmas' | 'user' | 'patches' | 'findings'>,
): void {
  const address = Number(task.set_child_tid);
  if (address === 0 || call === undefined || !isClone(call)) return;
  const { frames } = kernelStack(kernel, task, cpu);
  if (!frames.some((frame) => BEGINNING.has(frame.function))) return;
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
