import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, ulongNumber } from '../vmcore/view.ts';
import { rbTreeForEach } from './rbtree.ts';
import type { Task } from './sched.ts';
import { CLOCK } from './timekeeping.ts';

/** `struct hrtimer_sleeper` (include/linux/hrtimer.h): on the stack of a task that sleeps until a time at most. */
const hrtimerSleeper = struct('hrtimer_sleeper', {
  node: addressOf('timer.node.node'),
  softExpires: s64.at('timer._softexpires'),
  function: pointer.at('timer.function'),
  task: pointer,
});
const cpuBase = struct('hrtimer_cpu_base', { clock_base: addressOf() });
const clockBase = struct('hrtimer_clock_base', { clockid: s32, active: addressOf('active.rb_root') });

/** When a sleep ends at the latest: absolute, in nanoseconds of a clock. */
export interface Deadline {
  readonly clock: number;
  readonly expires: bigint;
}

/** HRTIMER_MAX_CLOCK_BASES: four clocks, each for hard and for soft interrupts. */
const CLOCK_BASES = 8;
/** Timers of one CPU and clock: one for each thread that sleeps, and some. */
const MAX_TIMERS = 1 << 22;

/**
 * Deadlines of all tasks that sleep on a high-resolution timer (nanosleep, poll, select, epoll_wait, futex ... with a timeout), by
 * address of the task. A damaged queue is left out: its sleepers have no deadline then.
 */
export function sleepDeadlines(kernel: Kernel): ReadonlyMap<bigint, Deadline> {
  const wakeup = kernel.symbol('hrtimer_wakeup');
  const sleeper = kernel.bind(hrtimerSleeper);
  const base = kernel.bind(clockBase);
  const deadlines = new Map<bigint, Deadline>();
  for (const cpu of kernel.cpus) {
    const { clock_base: first } = kernel.bind(cpuBase).at(kernel.perCpu('hrtimer_bases', cpu));
    for (let i = 0; i < CLOCK_BASES; i++) {
      const { clockid, active } = base.at(first + BigInt(i * base.size));
      try {
        for (const node of rbTreeForEach(kernel, active, MAX_TIMERS)) {
          const view = sleeper.containerOf(node, 'node');
          if (view.function === wakeup)
            deadlines.set(view.task, { clock: clockid, expires: view.softExpires });
        }
      } catch (error) {
        if (!(error instanceof ContainerError)) throw error;
      }
    }
  }
  return deadlines;
}

/** `task_struct.restart_block`: what a call that was interrupted by a stop or a signal had still to wait for. */
const restartBlock = struct('task_struct', {
  fn: pointer.at('restart_block.fn'),
  sleepClock: s32.at('restart_block.nanosleep.clockid'),
  sleepExpires: s64.at('restart_block.nanosleep.expires'),
  futexTime: s64.at('restart_block.futex.time'),
  pollHasTimeout: s32.at('restart_block.poll.has_timeout'),
  pollSeconds: ulongNumber.at('restart_block.poll.tv_sec'),
  pollNanoseconds: ulongNumber.at('restart_block.poll.tv_nsec'),
});

/** The deadline in a task's restart block: for a call that ended with -ERESTART_RESTARTBLOCK. */
export function restartDeadline(kernel: Kernel, task: Task): Deadline | undefined {
  const block = kernel.bind(restartBlock).at(task.address);
  if (block.fn === kernel.symbolMaybe('hrtimer_nanosleep_restart')) {
    return { clock: block.sleepClock, expires: block.sleepExpires };
  }
  if (block.fn === kernel.symbolMaybe('futex_wait_restart') && block.futexTime > 0n) {
    return { clock: CLOCK.monotonic, expires: block.futexTime };
  }
  if (block.fn === kernel.symbolMaybe('do_restart_poll') && block.pollHasTimeout !== 0) {
    const expires = BigInt(block.pollSeconds) * 1_000_000_000n + BigInt(block.pollNanoseconds);
    return { clock: CLOCK.monotonic, expires };
  }
  return undefined;
}
