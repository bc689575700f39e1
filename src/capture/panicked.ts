import { panicCpu } from '../linux/current.ts';
import { type RunningTasks, switchOf } from '../linux/readers/running-tasks.ts';
import { readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { TaskGroup } from './tasks.ts';

/**
 * The tasks whose system calls may have killed the kernel: all that the CPU that panicked was executing, or
 * changing from or to. It may have panicked over what either of the two has done. If nothing was on it, which
 * a panic cannot be, all that were on any CPU.
 *
 * @param groups the processes to look among for tasks that no CPU names
 */
export function panickedTasks(
  kernel: Kernel,
  running: RunningTasks,
  groups: readonly Pick<TaskGroup, 'threads'>[],
): ReadonlySet<bigint> {
  const cpu = panicCpu(kernel);
  if (cpu === undefined) return new Set();
  const onCpu = new Map(running.cpuOf);
  for (const [task, { cpu: on }] of running.switching) if (!onCpu.has(task)) onCpu.set(task, on);
  for (const task of groups.flatMap(({ threads }) => threads)) {
    if (onCpu.has(task.address)) continue;
    const change = readable(() => switchOf(kernel, running, task));
    if (change !== undefined) onCpu.set(task.address, change.cpu);
  }
  const there = [...onCpu].filter(([, on]) => on === cpu).map(([task]) => task);
  return new Set(there.length > 0 ? there : onCpu.keys());
}
