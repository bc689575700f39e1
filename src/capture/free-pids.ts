import { findPid, longestFreeRange, usedNumbers } from '../linux/pid.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { TaskGroup } from './tasks.ts';

/**
 * Hands out process ids that nobody has, from the end of the longest free range: the crash world's own
 * processes begin at its other end.
 */
export class FreePids {
  readonly #kernel: Kernel;
  readonly #known: ReadonlySet<number>;
  #next: number;

  /**
   * `groups` are all that comes back: their numbers must be left free even if the table of PIDs cannot be
   * read.
   */
  constructor(kernel: Kernel, groups: readonly TaskGroup[]) {
    this.#kernel = kernel;
    this.#known = new Set(groups.flatMap(({ allThreads }) => allThreads.map(({ pid }) => pid)));
    this.#next = longestFreeRange([...usedNumbers(kernel).numbers, ...this.#known]).last;
  }

  next(): number {
    while (this.#isTaken(this.#next)) this.#next--;
    return this.#next--;
  }

  #isTaken(pid: number): boolean {
    if (this.#known.has(pid)) return true;
    try {
      return findPid(this.#kernel, pid) !== undefined;
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return false;
    }
  }
}
