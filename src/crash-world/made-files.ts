import { type BigIntStats, closeSync, lstatSync, unlinkSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { messageOf } from '../system/thrown.ts';
import { openParent } from './make-files.ts';

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

  /** Remembers files, by the paths that they have where this is called. Throws the file system's error. */
  note(paths: Iterable<string>): void {
    for (const path of paths) {
      const parent = this.#parents.get(dirname(path)) ?? openParent(path);
      this.#parents.set(dirname(path), parent);
      const stats = lstatSync(`/proc/self/fd/${parent}/${basename(path)}`, { bigint: true });
      this.#made.push({ path, parent, stats });
    }
  }

  /** Removes those that are still there. @returns a sentence for each that cannot be removed */
  remove(): string[] {
    const problems = this.#made.flatMap(({ path, parent, stats: { dev, ino } }) => {
      const place = `/proc/self/fd/${parent}/${basename(path)}`;
      try {
        const now = lstatSync(place, { bigint: true, throwIfNoEntry: false });
        if (now?.dev === dev && now.ino === ino) unlinkSync(place);
        return [];
      } catch (error) {
        return [`${path} cannot be removed: ${messageOf(error)}`];
      }
    });
    this.keep();
    return problems;
  }

  /** Leaves them to the processes. */
  keep(): void {
    for (const fd of this.#parents.values()) closeSync(fd);
    this.#parents.clear();
    this.#made = [];
  }
}
