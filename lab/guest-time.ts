import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The time that a guest had, in seconds since `guestClock` was called: real time without what its
 * busiest-waiting thread waited for a processor of the host. A limit in this time is the guest's own, however
 * busy the host is.
 */
export type GuestClock = () => number;

const NANOSECONDS = 1e9;

/**
 * Starts a clock for the guest whose QEMU is `pid`. Where the kernel does not tell how long threads wait
 * (/proc/PID/task/TID/schedstat, Documentation/scheduler/sched-stats.rst), it shows real time.
 */
export function guestClock(pid: number, now: () => number = () => performance.now() / 1000): GuestClock {
  const start = now();
  const waitedBefore = threadWaits(`/proc/${pid}/task`);
  return () => now() - start - longestWait(waitedBefore, threadWaits(`/proc/${pid}/task`));
}

/** Seconds that the thread which waited longest has waited since `before`. */
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
