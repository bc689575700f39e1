import { type BigIntStats, closeSync, lstatSync, realpathSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { messageOf } from '../../system/thrown.ts';
import { openParent } from '../files/make-files.ts';

interface Made {
  readonly path: string;
  readonly parent: number;
  readonly stats: BigIntStats;
}

/**
 * Files that were made for processes: a service that starts afresh instead, as after a boot, does not find
 * them.
 */
export class MadeFiles {
  readonly #parents = new Map<string, number>();
  #made: Made[] = [];
  /** What is not there yet. */
  #awaited: Omit<Made, 'stats'>[] = [];

  /** Remembers files, by the paths that they have where this is called. Throws the file system's error. */
  note(paths: Iterable<string>): void {
    for (const path of paths) {
      const parent = this.#parentOf(path);
      const stats = lstatSync(`/proc/self/fd/${parent}/${basename(path)}`, { bigint: true });
      this.#made.push({ path, parent, stats });
    }
  }

  /**
   * Remembers sockets that CRIU is going to make, by the paths that they have where this is called; those
   * that are there already are nobody's to take away, and one whose directory is not there is named by CRIU.
   */
  await(paths: Iterable<string>): void {
    for (const path of paths) {
      try {
        const real = join(realpathSync(dirname(path)), basename(path));
        const parent = this.#parentOf(real);
        const stats = lstatSync(`/proc/self/fd/${parent}/${basename(path)}`, { throwIfNoEntry: false });
        if (stats === undefined) this.#awaited.push({ path, parent });
      } catch {
        // It is not made.
      }
    }
  }

  /**
   * Notes which sockets there are now where some were awaited: CRIU has made them. To be called as soon as it
   * has ended, however; nobody but root can make anything there.
   */
  came(): void {
    const awaited = this.#awaited;
    this.#awaited = [];
    for (const one of awaited) {
      const place = `/proc/self/fd/${one.parent}/${basename(one.path)}`;
      const stats = lstatSync(place, { bigint: true, throwIfNoEntry: false });
      if (stats === undefined) this.#awaited.push(one);
      else if (stats.isSocket()) this.#made.push({ ...one, stats });
    }
  }

  #parentOf(path: string): number {
    const parent = this.#parents.get(dirname(path)) ?? openParent(path);
    this.#parents.set(dirname(path), parent);
    return parent;
  }

  /** Removes those that are still there. @returns a sentence for each that cannot be removed */
  remove(): string[] {
    const problems = this.#made.flatMap(removeIfSame);
    this.keep();
    return problems;
  }

  /** Leaves them to the processes. */
  keep(): void {
    for (const fd of this.#parents.values()) closeSync(fd);
    this.#parents.clear();
    this.#made = [];
    this.#awaited = [];
  }
}

/** @returns a sentence if it is still there, and cannot be removed */
function removeIfSame({ path, parent, stats: { dev, ino } }: Made): string[] {
  const place = `/proc/self/fd/${parent}/${basename(path)}`;
  try {
    const now = lstatSync(place, { bigint: true, throwIfNoEntry: false });
    if (now?.dev === dev && now.ino === ino) unlinkSync(place);
    return [];
  } catch (error) {
    return [`${path} cannot be removed: ${messageOf(error)}`];
  }
}
