import type { OwnedFrames, PageDescriptors } from '../linux/readers/page-owner.ts';
import { foundRuns, joinRuns, type PageRun, type PageRuns } from '../model/page-runs.ts';
import { PAGE_SIZE } from '../system/page.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type MappedRun, walkUserPages } from '../vmcore/page-table.ts';

/** What the page tables say about one area. */
export interface AreaPages {
  /** Pages of the process's own. */
  readonly runs: PageRuns;
  /** Pages that are the file's, or zeros. */
  readonly others: number;
  /**
   * First address that has something else than a page (swapped out, being migrated, poisoned), and how many.
   */
  readonly notPresent: { readonly pages: number; readonly first: number; readonly type: number } | undefined;
  /** A sentence about the first frame that does not belong where the page tables have it. */
  readonly wrong: string | undefined;
}

/** How pages of an area have to look to be believed. */
export interface AreaShape {
  readonly start: number;
  readonly end: number;
  /** vm_pgoff: page index of the area's start. */
  readonly pgoff: number;
  /** Whether the area is a private mapping of a file, where pages of the file are to be expected. */
  readonly ofFile: boolean;
}

/** What one walk over the page tables found. */
class Tally {
  readonly #shape: AreaShape;
  own = 0;
  others = 0;
  missing = 0;
  firstMissing: MappedRun | undefined;
  wrong: string | undefined;

  constructor(shape: AreaShape) {
    this.#shape = shape;
  }

  notPresent(run: MappedRun): void {
    this.missing += run.pages;
    this.firstMissing ??= run;
  }

  /** Counts frames; returns whether they are the process's own. */
  frames(address: number, { owner, index, frames }: OwnedFrames): boolean {
    if (owner === 'zeros' || (owner === 'cache' && this.#shape.ofFile)) {
      this.others += frames;
      return false;
    }
    if (owner !== 'anonymous' && owner !== 'merged') {
      this.wrong ??= `the frame at 0x${address.toString(16)} is no anonymous memory`;
      return false;
    }
    const place = (address - this.#shape.start) / PAGE_SIZE + this.#shape.pgoff;
    if (owner === 'anonymous' && index !== place) {
      this.wrong ??= `the page at 0x${address.toString(16)} belongs to place ${index}, not ${place}`;
    }
    this.own += frames;
    return true;
  }
}

/**
 * Pages of a private area that are not in its file: walks the page tables and checks each frame against its
 * descriptor, which knows whether it is anonymous memory and its place in the area. Throws a VmcoreError for
 * damaged tables.
 */
export function privatePages(
  kernel: Kernel,
  pgd: bigint,
  shape: AreaShape,
  descriptors: PageDescriptors,
): AreaPages {
  function* own(tally: Tally): Generator<PageRun> {
    for (const run of walkUserPages(kernel, pgd, shape.start, shape.end)) {
      if (run.kind === 'swap') {
        tally.notPresent(run);
        continue;
      }
      for (let done = 0; done < run.pages; ) {
        const found = descriptors.ownerOf(run.pfn + done, run.pages - done);
        const [address, physical] = [run.address + done * PAGE_SIZE, (run.pfn + done) * PAGE_SIZE];
        if (tally.frames(address, found)) yield { address, pages: found.frames, physical };
        done += found.frames;
      }
    }
  }
  const tally = new Tally(shape);
  for (const _ of own(tally));
  const { firstMissing, missing, others, wrong } = tally;
  const what = `the memory area at 0x${shape.start.toString(16)}`;
  return {
    runs: foundRuns(what, tally.own, () => joinRuns(own(new Tally(shape)))),
    others,
    notPresent:
      firstMissing === undefined
        ? undefined
        : {
            pages: missing,
            first: firstMissing.address,
            type: kernel.architecture.pageTable.swapType(firstMissing.entryHigh),
          },
    wrong,
  };
}
