import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { vdsoDataStruct } from '../datapage.ts';
import { HRTIMER_MAX_CLOCK_BASES, hrtimerClockBaseStruct, hrtimerCpuBaseStruct } from '../hrtimer.ts';
import { uptimesByJiffies } from '../jiffies.ts';
import { lastLogRecord } from '../printk.ts';
import { rqStruct } from '../sched.ts';

/** What something in memory says of CLOCK_MONOTONIC at the end. Nanoseconds. */
export interface ClockWitness {
  readonly name: string;
  /** More than one where it depends on a number that is not known (CONFIG_HZ): one of them is right. */
  readonly times: readonly bigint[];
  /** How far from the clock it can be in a sound kernel. */
  readonly accuracy: bigint;
}

const MILLISECOND = 1_000_000n;
const SECOND = 1_000_000_000n;
/** What time is left to the kernel between two ticks, with some of them late. */
export const TICK_ACCURACY = 100n * MILLISECOND;
/**
 * jiffies begin with the first tick, some of the boot after the clock, and lose ticks until the clock source
 * is there.
 */
const JIFFIES_ACCURACY = 5n * SECOND;
/**
 * sched_clock() begins with the boot too, but is not steered: at most 500 parts in a million apart. It runs
 * on where ticks were held up, by as much as it takes a watchdog to notice.
 */
const schedClockAccuracy = (time: bigint): bigint => 60n * SECOND + time / 1000n;

/** Undefined where there is no time: zeros are what lost memory reads as, and would confirm each other. */
function witness(name: string, times: readonly bigint[], accuracy: bigint): ClockWitness | undefined {
  const possible = times.filter((time) => time > 0n);
  return possible.length === 0 ? undefined : { name, times: possible, accuracy };
}

/**
 * What the kernel shows to programs without a call: CLOCK_MONOTONIC_COARSE, set with each update of the
 * timekeeper.
 */
function vdsoClock(kernel: Kernel): ClockWitness | undefined {
  const address = kernel.symbolMaybe('_vdso_data');
  if (address === undefined || !kernel.hasMember('vdso_data', 'basetime[6].sec')) return undefined;
  const { monotonicSec, monotonicNsec } = kernel.bind(vdsoDataStruct).at(address);
  return witness('vdso_data', [monotonicSec * SECOND + monotonicNsec], TICK_ACCURACY);
}

/** When the next tick is due: the end of the tick in which the kernel died. */
function nextTick(kernel: Kernel): ClockWitness | undefined {
  return witness('tick_next_period', [kernel.memory.u64(kernel.symbol('tick_next_period'))], TICK_ACCURACY);
}

function jiffies(kernel: Kernel): ClockWitness | undefined {
  return witness('jiffies_64', uptimesByJiffies(kernel), JIFFIES_ACCURACY);
}

/** The kernel's last words. */
function lastRecord(kernel: Kernel): ClockWitness | undefined {
  const last = lastLogRecord(kernel);
  if (last === undefined) return undefined;
  return witness('the log', [last.timeNanoseconds], schedClockAccuracy(last.timeNanoseconds));
}

/** The clock of the run queues: of those that agree most with each other the latest. */
function runqueues(kernel: Kernel): ClockWitness | undefined {
  const clocks = kernel.cpus
    .map((cpu) => readable(() => kernel.bind(rqStruct).at(kernel.perCpu('runqueues', cpu)).clock))
    .filter((clock) => clock !== undefined)
    .toSorted((a, b) => (a < b ? -1 : 1));
  const middle = clocks[clocks.length >> 1];
  if (middle === undefined) return undefined;
  const accuracy = schedClockAccuracy(middle);
  const latest = clocks.findLast((clock) => clock <= middle + accuracy) ?? middle;
  return witness('the run queues', [latest], accuracy);
}

/** All that can be read, the most exact first. */
export function clockWitnesses(kernel: Kernel): ClockWitness[] {
  return [vdsoClock, nextTick, jiffies, lastRecord, runqueues].flatMap(
    (read) => readable(() => read(kernel)) ?? [],
  );
}

/** The witness that is quick to read: what a timekeeper that looks sound is held against. */
export function tickWitness(kernel: Kernel): ClockWitness | undefined {
  return readable(() => nextTick(kernel));
}

/** Which of a witness's times is near `time`; undefined if none is. */
export function timeNear({ times, accuracy }: ClockWitness, time: bigint, slack: bigint): bigint | undefined {
  return times.find((each) => {
    const apart = each - time;
    return (apart < 0n ? -apart : apart) <= accuracy + slack;
  });
}

/**
 * How far a clock is ahead of CLOCK_MONOTONIC, by the timers of each CPU: what most of them say; undefined if
 * none does.
 *
 * @param clock clock id of clock_gettime(2)
 */
export function timerOffset(kernel: Kernel, clock: number): bigint | undefined {
  const counts = new Map<bigint, number>();
  for (const cpu of kernel.cpus) {
    const offset = readable(() => {
      const base = kernel.bind(hrtimerClockBaseStruct);
      const { clock_base: first } = kernel.bind(hrtimerCpuBaseStruct).at(kernel.perCpu('hrtimer_bases', cpu));
      const bases = Array.from({ length: HRTIMER_MAX_CLOCK_BASES }, (_, i) =>
        base.at(first + BigInt(i * base.size)),
      );
      return bases.find(({ clockid }) => clockid === clock)?.offset;
    });
    if (offset !== undefined) counts.set(offset, (counts.get(offset) ?? 0) + 1);
  }
  return [...counts].toSorted(([, a], [, b]) => b - a)[0]?.[0];
}

/**
 * CRASHTIME of VMCOREINFO, which the crash code itself writes: CLOCK_REALTIME in nanoseconds, of which the
 * seconds are known.
 */
export function crashTime(kernel: Kernel): bigint | undefined {
  const text = kernel.vmcoreinfo.get('CRASHTIME') ?? '';
  return /^[1-9]\d{0,10}$/.test(text) ? BigInt(text) * SECOND : undefined;
}
