import { forEachThread } from '../linux/pid.ts';
import { frameText, kernelStack } from '../linux/readers/kernel-stack.ts';
import { runningTasks } from '../linux/readers/running-tasks.ts';
import { type Task, taskAt } from '../linux/sched.ts';
import { isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Inspection } from './inspection.ts';
import { commOf, requireTask } from './tasks.ts';

/** Where one thread was in the kernel. */
export interface StackRow {
  readonly tid: number;
  readonly comm: string;
  /** As /proc/PID/stack has them, innermost first: `vfs_read+0x1b2`, `ext4_sync_file+0x10 [ext4]`. */
  readonly frames: readonly string[];
  /** Why it cannot be told what comes behind them. */
  readonly problem?: string;
}

/** The kernel stack of one thread. */
export function stackRow(kernel: Kernel, task: Task, cpu: number | undefined): StackRow {
  const { frames, why } = kernelStack(kernel, task, cpu);
  const row = { tid: task.pid, comm: commOf(task), frames: frames.map((frame) => frameText(kernel, frame)) };
  return why === undefined ? row : { ...row, problem: why };
}

/** Kernel stacks of the threads of a process. */
export function stackInspection(kernel: Kernel, pid: number): Inspection {
  const { cpuOf } = runningTasks(kernel);
  const rows: StackRow[] = [];
  const missing: string[] = [];
  try {
    for (const address of forEachThread(kernel, requireTask(kernel, pid).address))
      rows.push(stackRow(kernel, taskAt(kernel, address), cpuOf.get(address)));
  } catch (error) {
    if (!isDamage(error)) throw error;
    missing.push(`threads are missing: ${error.message}`);
  }
  const lines = rows.flatMap(({ tid, comm, frames, problem }) => [
    `${tid} ${comm}`,
    ...frames.map((frame) => `  ${frame}`),
    ...(problem === undefined ? [] : [`  --- ${problem}`]),
  ]);
  return {
    json: () => ({ pid, threads: rows, missing }),
    text: () => [...lines, ...missing.map((sentence) => `--- ${sentence}`)].join('\n'),
    problems: [
      ...missing,
      ...rows.flatMap(({ tid, problem }) => (problem === undefined ? [] : [`thread ${tid}: ${problem}`])),
    ],
  };
}
