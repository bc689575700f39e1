import { readdirSync, readFileSync } from 'node:fs';
import { ifThere, processNumbers } from '../../system/proc.ts';

/** The number of a call and its first argument, of a thread that sleeps in it. */
const SLEEPS = /^(\d+) (0x[0-9a-f]+) /;
const INT = 0xffff_ffffn;

function isIn(path: string, calls: ReadonlySet<number>, argument: number): boolean {
  const text = ifThere(() => readFileSync(path, 'latin1'));
  const [, call, first = '0'] = (text === undefined ? undefined : SLEEPS.exec(text)) ?? [];
  return call !== undefined && calls.has(Number(call)) && (BigInt(first) & INT) === BigInt(argument);
}

/**
 * Threads of the system that sleep in one of these system calls with this first argument. The kernel has no
 * other way to tell who waits for a message queue.
 */
export function threadsIn(calls: ReadonlySet<number>, argument: number): number[] {
  return processNumbers().flatMap((pid) => {
    const threads = ifThere(() => readdirSync(`/proc/${pid}/task`)) ?? [];
    return threads.filter((tid) => isIn(`/proc/${pid}/task/${tid}/syscall`, calls, argument)).map(Number);
  });
}
