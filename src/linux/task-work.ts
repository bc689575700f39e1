import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';
import { checkLimit, DEFAULT_LIMIT } from './container.ts';
import { taskAt } from './sched.ts';

/** `struct callback_head` (include/linux/types.h): work that a task does on its way out of the kernel. */
export const callbackHead = struct('callback_head', { next: pointer, func: pointer });

/**
 * The files that a task has given up and not closed yet, as addresses of struct file: fput()
 * (fs/file_table.c) leaves the last reference to `____fput` on `task_works`. Those that it is just closing
 * are on no list. Throws a VmcoreError.
 */
export function filesToClose(kernel: Kernel, task: bigint): bigint[] {
  const close = kernel.symbolMaybe('____fput');
  // 6.12 has a place of its own for it, 6.1 has not.
  const member = kernel.hasMember('file', 'f_task_work') ? 'f_task_work' : 'f_rcuhead';
  const place = kernel.layouts.member('file', member)?.offsetBytes;
  if (close === undefined || place === undefined) return [];
  const bound = kernel.bind(callbackHead);
  const files: bigint[] = [];
  let address = taskAt(kernel, task).task_works;
  for (let count = 1; address !== 0n; count++) {
    checkLimit('task_works', task, count, DEFAULT_LIMIT);
    const { next, func } = bound.at(address);
    if (func === close) files.push(address - BigInt(place));
    address = next;
  }
  return files;
}
