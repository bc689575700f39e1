import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { interruptStack, isOnStackOf, placeOnCpu } from '../arch/index.ts';
import { currentTask, saysItIsOn } from '../current.ts';
import { forEachTask, forEachThread } from '../pid.ts';
import { rqStruct, type Task, taskAt } from '../sched.ts';
import { BEGINNING, kernelStack, type StackFrame } from './kernel-stack.ts';

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
  '__switch_to_asm __switch_to finish_task_switch __schedule schedule_tail'.split(' '),
);

/**
 * The task that was executing on each CPU. A task that does not itself say so (`on_cpu`, `thread_info.cpu`)
 * is not believed; the CPU's run queue is asked then. In the middle of a change from one task to another the
 * stack that the CPU is on decides. Throws a VmcoreError only if it cannot be told which CPUs there were.
 */
export function runningTasks(kernel: Kernel): RunningTasks {
  const cpuOf = new Map<bigint, number>();
  const unknown: number[] = [];
  const switching = new Map<bigint, Switching>();
  for (const cpu of kernel.cpus) {
    const current = executing(kernel, cpu, () => currentTask(kernel, cpu));
    const next = executing(kernel, cpu, () => queueCurrent(kernel, cpu));
    const task = current ?? next;
    if (task === undefined) unknown.push(cpu);
    else if (current === next) cpuOf.set(task, cpu);
    else if (current === undefined || next === undefined) {
      if (isElsewhere(kernel, cpu, task)) unknown.push(cpu);
      else cpuOf.set(task, cpu);
    } else {
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

function executing(kernel: Kernel, cpu: number, read: () => bigint): bigint | undefined {
  return readable(() => {
    const task = read();
    return saysItIsOn(taskAt(kernel, task), cpu) ? task : undefined;
  });
}

/**
 * Whether a CPU was on a stack that is neither a task's nor its own for interrupts, which cannot come while
 * it changes tasks. If only one of its two witnesses is left, it may have been changing from or to that task.
 */
function isElsewhere(kernel: Kernel, cpu: number, address: bigint): boolean {
  const place = readable(() => placeOnCpu(kernel, cpu, taskAt(kernel, address).pid));
  if (place === undefined) return false;
  const { start = 0n, end = 0n } = interruptStack(kernel, cpu) ?? {};
  if (place.sp >= start && place.sp < end) return false;
  return readable(() => isOnStackOf(kernel, taskAt(kernel, address), place.sp)) !== true;
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
  const isOwner = (task: bigint): boolean =>
    place !== undefined && readable(() => isOnStackOf(kernel, taskAt(kernel, task), place.sp)) === true;
  const owner = [current, next].find(isOwner);
  const isEarly = owner === next && place && kernel.symbolAt(place.ip)?.name === '__switch_to_asm';
  return { owner, isInUse: isEarly !== true };
}

/**
 * What a task was to a CPU in the middle of a change; undefined if there was none, or if that cannot be
 * told.
 *
 * Of the previous task no CPU keeps anything once the next one is `current`. It is the only one that says
 * that it is on that CPU (which it cannot leave before the change is over), though every CPU is on another's
 * stack, and its own is where the scheduler changes tasks.
 */
export function switchOf(kernel: Kernel, running: RunningTasks, task: Task): Switching | undefined {
  const on = running.cpuOf.get(task.address);
  const known = running.switching.get(task.address);
  // A CPU that is on its stack is more than one that names it.
  if (known !== undefined && (on === undefined || on === known.cpu)) return known;
  if (kernel.isAlive || task.on_cpu === 0) return undefined;
  if (on !== undefined) return isTakenUp(kernel, task, on) ? { cpu: on, part: 'entering' } : undefined;
  const { cpu } = task;
  const [successor] = [...running.cpuOf].find(([, its]) => its === cpu) ?? [];
  if (cpu === undefined || successor === undefined || running.unknown.length > 0) return undefined;
  const { frames } = kernelStack(kernel, taskAt(kernel, successor), cpu);
  if (!frames.some(isOfSwitch)) return undefined;
  const previous = unnamedOf(kernel, running).filter((other) => other.cpu === cpu);
  const isOnlyOne = previous.length === 1 && previous[0]?.task === task.address;
  return isOnlyOne ? { cpu, part: 'saved' } : undefined;
}

/** A kernel thread has where it began on its stack for life, which counts until it calls something. */
function isOfSwitch({ function: name, isInterrupted }: StackFrame): boolean {
  return SWITCHES.has(name) || (isInterrupted && BEGINNING.has(name));
}

/** A task that says that it was on a CPU, which has another one. */
interface Unnamed {
  readonly task: bigint;
  readonly cpu: number | undefined;
}

const unnamed = new WeakMap<RunningTasks, readonly Unnamed[]>();

/** None if the tasks cannot all be read. */
function unnamedOf(kernel: Kernel, running: RunningTasks): readonly Unnamed[] {
  const known = unnamed.get(running);
  if (known !== undefined) return known;
  const found = readable(() => [...findUnnamed(kernel, running)]) ?? [];
  unnamed.set(running, found);
  return found;
}

function* findUnnamed(kernel: Kernel, { cpuOf }: RunningTasks): Generator<Unnamed> {
  for (const leader of forEachTask(kernel))
    for (const task of forEachThread(kernel, leader)) {
      const { on_cpu, cpu } = taskAt(kernel, task);
      if (on_cpu !== 0 && !cpuOf.has(task)) yield { task, cpu };
    }
}

/** Whether a CPU is on the stack of a task, in the function that takes its registers up. */
function isTakenUp(kernel: Kernel, task: Task, cpu: number): boolean {
  if (readable(() => queueCurrent(kernel, cpu)) !== task.address) return false;
  return kernelStack(kernel, task, cpu).frames.some((frame) => frame.function === '__switch_to');
}

/**
 * The CPU that was using the stack of a task; undefined if none was. One that has just come to a task's stack
 * has written to nothing of it that the task had put there.
 */
export function cpuOnStack(kernel: Kernel, running: RunningTasks, task: Task): number | undefined {
  const cpu = running.cpuOf.get(task.address);
  return cpu === undefined || switchOf(kernel, running, task) !== undefined ? undefined : cpu;
}
