import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { isOnStackOf, placeOnCpu } from '../arch/index.ts';
import { currentTask } from '../current.ts';
import { rqStruct, type Task, taskAt } from '../sched.ts';
import { kernelStack } from './kernel-stack.ts';

/**
 * What a task is to a CPU that was changing from one task to another. Both say that they are on a CPU then:
 * the next one from before the change, the previous one until it is over (`prepare_task`, `finish_task`,
 * kernel/sched/core.c).
 */
export type SwitchPart =
  /**
   * The CPU is not yet on its stack, or has put down all that it had of it: it is like a task that sleeps.
   */
  | 'saved'
  /**
   * The CPU has left its stack. Whether it has put down what it had in vector registers and segment bases
   * nothing tells.
   */
  | 'leaving'
  /** The CPU has come to its stack, and all that user mode has in registers is still in memory. */
  | 'entering';

/** A task of which a CPU was changing to another one, or the other way round. */
export interface Switching {
  readonly cpu: number;
  readonly part: SwitchPart;
}

/** The tasks that were executing on a CPU, and how sure that is. */
export interface RunningTasks {
  /** The CPU that was on the kernel stack of a task, by the address of the task_struct. */
  readonly cpuOf: ReadonlyMap<bigint, number>;
  /** CPUs of which nothing tells what they were executing. */
  readonly unknown: readonly number[];
  /** Tasks that a CPU was changing to or from, as far as the CPUs themselves tell: {@link switchOf}. */
  readonly switching: ReadonlyMap<bigint, Switching>;
}

/** Functions in which a CPU is on the next task's stack, and the previous one may still say that it runs. */
const SWITCHES: ReadonlySet<string | undefined> = new Set(
  '__switch_to_asm __switch_to finish_task_switch __schedule schedule_tail ret_from_fork ret_from_fork_asm'.split(
    ' ',
  ),
);

/**
 * The task that was executing on each CPU. A task that does not itself say so (`on_cpu`) is not believed; the
 * CPU's run queue is asked then. In the middle of a change from one task to another the stack that the CPU is
 * on decides. Throws a VmcoreError only if it cannot be told which CPUs there were.
 */
export function runningTasks(kernel: Kernel): RunningTasks {
  const cpuOf = new Map<bigint, number>();
  const unknown: number[] = [];
  const switching = new Map<bigint, Switching>();
  for (const cpu of kernel.cpus) {
    const current = executing(kernel, () => currentTask(kernel, cpu));
    const next = executing(kernel, () => queueCurrent(kernel, cpu));
    const task = current ?? next;
    if (task === undefined) unknown.push(cpu);
    else if (current === undefined || next === undefined || current === next) cpuOf.set(task, cpu);
    else {
      const { owner, isInUse } = stackOwner(kernel, cpu, current, next);
      if (isInUse) cpuOf.set(owner ?? current, cpu);
      if (owner !== undefined)
        switching.set(next, { cpu, part: owner === next && isInUse ? 'entering' : 'saved' });
      if (owner === next) switching.set(current, { cpu, part: 'leaving' });
    }
  }
  return { cpuOf, unknown, switching };
}

/**
 * `rq->curr`: `__schedule` sets it before it changes to that task, `__switch_to` the CPU's `current` after.
 */
function queueCurrent(kernel: Kernel, cpu: number): bigint {
  return kernel.bind(rqStruct).at(kernel.perCpu('runqueues', cpu)).curr;
}

function executing(kernel: Kernel, read: () => bigint): bigint | undefined {
  try {
    const task = read();
    return taskAt(kernel, task).on_cpu === 0 ? undefined : task;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}

/** Which of two tasks has the stack that a CPU was on. */
interface StackOwner {
  /** Undefined if that cannot be told. */
  readonly owner: bigint | undefined;
  /**
   * Whether its stack is read from where the CPU is. What `__switch_to_asm` does with the stack pointer no
   * table tells (it may fill the buffer of return addresses); what lies at `thread.sp` is whole there.
   */
  readonly isInUse: boolean;
}

function stackOwner(kernel: Kernel, cpu: number, current: bigint, next: bigint): StackOwner {
  const place = readable(() => placeOnCpu(kernel, cpu, taskAt(kernel, current).pid));
  const owner = place && [current, next].find((task) => isOnStackOf(kernel, taskAt(kernel, task), place.sp));
  const isEarly = owner === next && place && kernel.symbolAt(place.ip)?.name === '__switch_to_asm';
  return { owner, isInUse: isEarly !== true };
}

/**
 * What a task was to a CPU in the middle of a change; undefined if there was none, or if that cannot be
 * told.
 *
 * Of the previous task no CPU keeps anything once the next one is `current`. It is the one that says that it
 * is on a CPU, though every CPU is on another's stack, and its own (which it cannot leave before the change
 * is over) is where the scheduler changes tasks.
 */
export function switchOf(kernel: Kernel, running: RunningTasks, task: Task): Switching | undefined {
  const known = running.switching.get(task.address);
  if (known !== undefined || kernel.isAlive || task.on_cpu === 0) return known;
  const on = running.cpuOf.get(task.address);
  if (on !== undefined) return isTakenUp(kernel, task, on) ? { cpu: on, part: 'entering' } : undefined;
  const { cpu } = task;
  const [successor] = [...running.cpuOf].find(([, its]) => its === cpu) ?? [];
  if (cpu === undefined || successor === undefined || running.unknown.length > 0) return undefined;
  const { frames } = kernelStack(kernel, taskAt(kernel, successor), cpu);
  return frames.some((frame) => SWITCHES.has(frame.function)) ? { cpu, part: 'saved' } : undefined;
}

/** Whether a CPU is on the stack of a task, in the function that takes its registers up. */
function isTakenUp(kernel: Kernel, task: Task, cpu: number): boolean {
  if (readable(() => queueCurrent(kernel, cpu)) !== task.address) return false;
  return kernelStack(kernel, task, cpu).frames.some((frame) => frame.function === '__switch_to');
}

/**
 * Whether a CPU was using the stack of a task. One that has just come to a task's stack has written to
 * nothing of it that the task had put there.
 */
export function hasStackInUse(kernel: Kernel, running: RunningTasks, task: Task): boolean {
  return running.cpuOf.has(task.address) && switchOf(kernel, running, task) === undefined;
}
