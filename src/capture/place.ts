import { wasInUserMode } from '../linux/current.ts';
import { switchOf } from '../linux/readers/running-tasks.ts';
import type { Task } from '../linux/sched.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { OnCpu } from './arch/index.ts';
import type { ThreadSource } from './calls/interrupted-call.ts';

type PlaceSource = Pick<ThreadSource, 'kernel' | 'running' | 'liveCpus'>;

/** What a thread's registers are taken from. */
export interface Place {
  /** The CPU that had some of them; undefined if all of them are in memory. */
  readonly onCpu: OnCpu | undefined;
  /** Why nothing has its registers. */
  readonly lost: string | undefined;
}

/** Where a thread's registers are. */
export function placeOf(source: PlaceSource, task: Task): Place {
  const { kernel, running, liveCpus } = source;
  const change = switchOf(kernel, running, task);
  const isLeaving = change?.part === 'leaving';
  if (change !== undefined && !isLeaving) return { onCpu: undefined, lost: undefined };
  const cpu = change?.cpu ?? running.cpuOf.get(task.address);
  if (cpu === undefined) return { onCpu: undefined, lost: lostCpu(source, task) };
  const onCpu = { cpu, live: liveCpus.of(cpu, task), isLeaving };
  return { onCpu, lost: isLeaving ? undefined : lostOnCpu(kernel, task, onCpu) };
}

/** Whether a thread was on a CPU whose registers nobody saved. */
export function hasLostRegisters(source: PlaceSource, task: Task): boolean {
  const { onCpu } = placeOf(source, task);
  return onCpu !== undefined && onCpu.live.processor === undefined;
}

/**
 * A task on a CPU in user mode has newer vector registers than its kernel stack: those that stage zero saved,
 * if it did.
 */
function lostOnCpu(kernel: Kernel, task: Task, { cpu, live }: OnCpu): string | undefined {
  if (kernel.isAlive) return `thread ${task.pid} is on CPU ${cpu}: its registers are there, not in memory`;
  const userMode = wasInUserMode(kernel, cpu, task.pid);
  if (userMode === undefined) return `thread ${task.pid} was on CPU ${cpu}, and nothing tells in what state`;
  if (!userMode || live.saved !== undefined) return undefined;
  return `thread ${task.pid} was computing on CPU ${cpu}: its vector registers ${live.why}`;
}

/**
 * A task that says that it was executing, though no CPU says so: damage, or a CPU that had been stopped for
 * the panic.
 */
function lostCpu({ kernel, running }: PlaceSource, task: Task): string | undefined {
  if (task.on_cpu === 0) return undefined;
  if (kernel.isAlive) return `thread ${task.pid} is on a CPU: its registers are there, not in memory`;
  const where = running.unknown.length > 0 ? ` (CPU ${running.unknown.join(', ')} cannot be read)` : '';
  return `thread ${task.pid} was on a CPU, and nothing tells on which, nor in what state${where}`;
}
