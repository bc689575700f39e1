import { lstatSync, readdirSync } from 'node:fs';
import { limitOf, RLIMIT_NOFILE, setLimit } from '../src/system/process-settings.ts';

/**
 * Does a step in which this process can open so many files more, whatever the tests that share it have open.
 * @param step is given the limit: one more than the highest descriptor that there can be
 */
export function withDescriptorsLeft<T>(left: number, step: (limit: number) => T): T {
  const before = limitOf(0, RLIMIT_NOFILE);
  const limit = limitThatLeaves(left);
  setLimit(0, RLIMIT_NOFILE, { ...before, soft: BigInt(limit) });
  try {
    return step(limit);
  } finally {
    setLimit(0, RLIMIT_NOFILE, before);
  }
}

function limitThatLeaves(left: number): number {
  // It is read through one that is closed afterwards.
  const open = new Set(readdirSync('/proc/self/fd').filter(isOpen).map(Number));
  let limit = 0;
  for (let free = 0; free < left; limit++) if (!open.has(limit)) free++;
  return limit;
}

const isOpen = (fd: string): boolean =>
  lstatSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false }) !== undefined;
