import { ChangingError, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import {
  type Deadline,
  HRTIMER_ENQUEUED,
  HRTIMER_MAX_CLOCK_BASES,
  hrtimerClockBaseStruct,
  hrtimerCpuBaseStruct,
  hrtimerSleeperStruct,
} from '../hrtimer.ts';
import { rbTreeForEach } from '../rbtree.ts';
import type { Task } from '../sched.ts';

/** Timers of one CPU and clock: one for each thread that sleeps, and some. */
const MAX_TIMERS = 1 << 22;

/** What the timers of all CPUs tell. */
export interface Deadlines {
  /** By the address of the task. */
  readonly byTask: ReadonlyMap<bigint, Deadline>;
  /**
   * Sentences about the queues that could not be read whole: tasks that wait in one of these may be missing.
   */
  readonly damage: readonly string[];
  /** That is all because a living kernel changed them meanwhile. */
  readonly isChanging: boolean;
}

/**
 * Deadlines of all tasks that sleep on a high-resolution timer (nanosleep, poll, select, epoll_wait, futex
 * ... with a timeout). Of a damaged queue those are read that come before the damage.
 */
export function sleepDeadlines(kernel: Kernel): Deadlines {
  const byTask = new Map<bigint, Deadline>();
  const damage: string[] = [];
  let isChanging = true;
  for (const cpu of kernel.cpus) {
    for (let i = 0; i < HRTIMER_MAX_CLOCK_BASES; i++) {
      try {
        readQueue(kernel, cpu, i, byTask);
      } catch (error) {
        if (!(error instanceof VmcoreError)) throw error;
        damage.push(`timer queue ${i} of CPU ${cpu}: ${error.message}`);
        isChanging &&= error instanceof ChangingError;
      }
    }
  }
  return { byTask, damage, isChanging: isChanging && damage.length > 0 };
}

function readQueue(kernel: Kernel, cpu: number, index: number, byTask: Map<bigint, Deadline>): void {
  const wakeup = kernel.symbol('hrtimer_wakeup');
  const sleeper = kernel.bind(hrtimerSleeperStruct);
  const base = kernel.bind(hrtimerClockBaseStruct);
  const { clock_base: first } = kernel.bind(hrtimerCpuBaseStruct).at(kernel.perCpu('hrtimer_bases', cpu));
  const { clockid, active } = base.at(first + BigInt(index * base.size));
  for (const node of rbTreeForEach(kernel, active, MAX_TIMERS)) {
    const view = sleeper.containerOf(node, 'node');
    if (view.function === wakeup) byTask.set(view.task, { clock: clockid, expires: view.softExpires });
  }
}

const STACK_BYTES = 16384n;

/**
 * When a task was to wake up; undefined if it sleeps without a timeout. A timer that has fired is on no queue
 * any more, and one in a damaged queue may not be found there: those are looked for where a task that does
 * not execute keeps its own, on its kernel stack.
 *
 * @param isOnCpu the task was executing: nothing tells which part of its stack is in use
 */
export function sleepDeadline(
  kernel: Kernel,
  deadlines: Deadlines,
  task: Task,
  isOnCpu: boolean,
): Deadline | undefined {
  const known = deadlines.byTask.get(task.address);
  if (known !== undefined || isOnCpu) return known;
  try {
    return sleeperOnStack(kernel, task);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}

/** hrtimer_wakeup() (kernel/time/hrtimer.c) takes the task out of the sleeper when the timer has fired. */
function sleeperOnStack(kernel: Kernel, task: Task): Deadline | undefined {
  const sleeper = kernel.bind(hrtimerSleeperStruct);
  const wakeup = kernel.symbol('hrtimer_wakeup');
  const { stack } = task;
  const { sp } = task.thread;
  const end = stack + STACK_BYTES;
  if (sp < stack || sp >= end) return undefined;
  const bytes = kernel.memory.read(sp, Number(end - sp));
  const found: Deadline[] = [];
  for (let at = 0; at + sleeper.size <= bytes.length; at += 8) {
    if (bytes.readBigUInt64LE(at + sleeper.offsetOf('function')) !== wakeup) continue;
    const waiter = bytes.readBigUInt64LE(at + sleeper.offsetOf('task'));
    const { base, state, softExpires } = sleeper.at(sp + BigInt(at));
    const isQueued = (state & HRTIMER_ENQUEUED) !== 0;
    if (waiter !== (isQueued ? task.address : 0n)) continue;
    found.push({ clock: kernel.bind(hrtimerClockBaseStruct).at(base).clockid, expires: softExpires });
  }
  return found.length === 1 ? found[0] : undefined;
}
