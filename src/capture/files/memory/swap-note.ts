import { swappedPages } from '../../../linux/shmem.ts';
import type { CaptureContext } from '../context.ts';

/**
 * Notes for protected processes that a living kernel has part of what they share in swap: that is not tried
 * before a panic. For what is not refused.
 * @param mapping page cache of an inode of memory
 * @param what `shared memory`, or a path
 */
export function noteSwapped(
  context: CaptureContext,
  mapping: bigint,
  what: string,
  pids: Iterable<number>,
): void {
  const { kernel, tasks } = context;
  const pages = kernel.isAlive ? (swappedPages(kernel, mapping) ?? 0) : 0;
  if (pages === 0) return;
  for (const pid of pids) {
    if (tasks.has(pid))
      context.note(pid, `has ${pages} pages of ${what} in swap, which is read after a panic`);
  }
}
