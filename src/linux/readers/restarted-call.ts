import type { Kernel } from '../../vmcore/kernel.ts';
import type { Deadline } from '../hrtimer.ts';
import type { Task } from '../sched.ts';
import { CLOCK } from '../timekeeping.ts';

/** The deadline in a task's restart block: for a call that ended with -ERESTART_RESTARTBLOCK. */
export function restartDeadline(kernel: Kernel, task: Task): Deadline | undefined {
  const block = task.restart_block;
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

/** No user address is that low (vm.mmap_min_addr): a smaller first argument is a clock. */
const LOWEST_ADDRESS = 4096n;

/**
 * Name of the call that restart_syscall(2) goes on with: the kernel makes that call when a thread had been
 * stopped in a sleep or a poll. Its arguments are still those of the first call. Undefined where that cannot
 * be told: a futex wait has emptied its restart block by then (futex_wait_restart), and sleeps on other
 * clocks keep something else there.
 *
 * @param firstArgument the register di: an address for nanosleep, a clock for clock_nanosleep
 */
export function restartedCall(kernel: Kernel, task: Task, firstArgument: bigint): string | undefined {
  const { fn } = task.restart_block;
  if (fn === kernel.symbolMaybe('do_restart_poll')) return 'poll';
  if (fn !== kernel.symbolMaybe('hrtimer_nanosleep_restart')) return undefined;
  return firstArgument < LOWEST_ADDRESS ? 'clock_nanosleep' : 'nanosleep';
}
