import { PAGE_SIZE } from '../system/page.ts';
/**
 * Pages that are consecutive in an address space (or an object) and lie in consecutive frames of old memory.
 */
export interface PageRun {
  /** User address of the first page, or byte offset in the object; a multiple of 4096. */
  readonly address: number;
  readonly pages: number;
  /** Physical address of the first frame. */
  readonly physical: number;
}

/** Runs of pages by rising address; may be gone through any number of times, while old memory is there. */
export interface PageRuns extends Iterable<PageRun> {
  /** Pages of all runs. */
  readonly pages: number;
}

/** Runs that are few. */
export function listedRuns(list: readonly PageRun[]): PageRuns {
  const pages = list.reduce((sum, run) => sum + run.pages, 0);
  return { pages, [Symbol.iterator]: () => list[Symbol.iterator]() };
}

/**
 * Runs that are found in old memory anew each time: a large process has more of them than the crash world has
 * memory. Going through them throws an Error that names `what` if they are not as many pages as they were.
 */
export function foundRuns(what: string, pages: number, find: () => Iterable<PageRun>): PageRuns {
  if (pages === 0) return listedRuns([]);
  return {
    pages,
    *[Symbol.iterator]() {
      let found = 0;
      for (const run of find()) {
        found += run.pages;
        yield run;
      }
      if (found !== pages)
        throw new Error(`${what} has ${found} pages in old memory, where ${pages} were found before`);
    },
  };
}

/** Joins runs that are adjacent in both ways. */
export function* joinRuns(runs: Iterable<PageRun>): Generator<PageRun, void, undefined> {
  let last: { address: number; pages: number; physical: number } | undefined;
  for (const { address, pages, physical } of runs) {
    if (
      last !== undefined &&
      last.address + last.pages * PAGE_SIZE === address &&
      last.physical + last.pages * PAGE_SIZE === physical
    ) {
      last.pages += pages;
      continue;
    }
    if (last !== undefined) yield last;
    last = { address, pages, physical };
  }
  if (last !== undefined) yield last;
}

/** Runs of a file's pages as bytes, cut off at its end. `offset` is the place in the file. */
export function* contentRuns(
  runs: PageRuns,
  sizeBytes: number,
): Generator<{ offset: number; physical: number; length: number }, void, undefined> {
  for (const { address, pages, physical } of runs) {
    const length = Math.min(pages * PAGE_SIZE, sizeBytes - address);
    if (length > 0) yield { offset: address, physical, length };
  }
}
