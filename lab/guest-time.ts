import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The time that a guest had, in seconds since `guestClock` was called: real time without what its
 * busiest-waiting thread waited for a processor of the host, and without what the host, where it is a virtual
 * machine, waited for one of its own. A limit in this time is the guest's own, however busy the hosts are.
 */
export type GuestClock = () => number;

const NANOSECONDS = 1e9;

/**
 * Starts a clock for the guest whose QEMU is `pid`. Where the kernel does not tell how long threads wait
 * (/proc/PID/task/TID/schedstat, Documentation/scheduler/sched-stats.rst), it shows real time.
 */
export function guestClock(pid: number, now: () => number = () => performance.now() / 1000): GuestClock {
  const start = now();
  const look = (): Map<string, number> => threadWaits(`/proc/${pid}/task`);
  const [waitedBefore, stolenBefore] = [look(), stolenSeconds(readStat())];
  return () =>
    now() - start - longestWait(waitedBefore, look()) - longestWait(stolenBefore, stolenSeconds(readStat()));
}

/** Seconds that the thread, or CPU, which waited longest has waited since `before`. */
export function longestWait(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): number {
  const waits = [...after].map(([thread, seconds]) => seconds - (before.get(thread) ?? 0));
  return Math.max(0, ...waits);
}

/** Seconds that each thread has waited on a run queue; empty if that cannot be read. */
function threadWaits(directory: string): Map<string, number> {
  const waits = new Map<string, number>();
  try {
    for (const thread of readdirSync(directory)) {
      const [, waited] = readFileSync(join(directory, thread, 'schedstat'), 'latin1').split(' ');
      waits.set(thread, Number(waited) / NANOSECONDS);
    }
  } catch {
    // The process or one of its threads has ended: what is there will do.
  }
  return waits;
}

/** /proc/stat counts in these, whatever the kernel's own tick is (USER_HZ). */
const TICKS_PER_SECOND = 100;

/** Column of a CPU's line in /proc/stat, behind its name: time that the hypervisor gave to others. */
const STEAL = 7;

/** Seconds that each of the host's CPUs was taken away by a hypervisor below, from the text of /proc/stat. */
export function stolenSeconds(stat: string): Map<string, number> {
  const lines = stat.matchAll(/^(cpu\d+) (.*)$/gm);
  return new Map(
    Array.from(lines, ([, cpu = '', times = '']) => [
      cpu,
      Number(times.split(' ')[STEAL] ?? 0) / TICKS_PER_SECOND,
    ]),
  );
}

function readStat(): string {
  return readFileSync('/proc/stat', 'latin1');
}
