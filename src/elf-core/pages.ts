import { vdsoPages } from '../linux/mm.ts';
import type { Mm } from '../linux/mm-types.ts';
import { cachedPageOf } from '../linux/pagemap.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { walkUserPages } from '../vmcore/page-table.ts';
import type { CoreArea } from './areas.ts';

/**
 * Why pages are not in a core:
 * - `unwanted`: the process's coredump_filter, or madvise(MADV_DONTDUMP), or they are a device's or the
 *   kernel's;
 * - `inFile`: they are as the mapped file has them, and not in memory;
 * - `swapped`: in swap, or being moved;
 * - `notInDump`: in memory, and the dump does not have them;
 * - `unreadable`: what leads to them is damaged, or not in the dump.
 */
export type Absence = 'unwanted' | 'inFile' | 'swapped' | 'notInDump' | 'unreadable';

/** Consecutive pages of an area: in old memory from `physical` on, never touched (zeros), or not there. */
export type Piece = { readonly address: number; readonly pages: number } & (
  | { readonly kind: 'memory'; readonly physical: number }
  | { readonly kind: 'zeros' }
  | { readonly kind: Absence }
);

/** A range of an area that is all the same, or nothing if it is empty. */
function* range(from: number, to: number, kind: 'zeros' | Absence): Generator<Piece> {
  if (to > from) yield { kind, address: from, pages: (to - from) / PAGE_SIZE };
}

/** Frames of which a part may be missing from the dump. */
function* framesInDump(kernel: Kernel, address: number, pages: number, physical: number): Generator<Piece> {
  if (kernel.physical.has(physical, pages * PAGE_SIZE)) {
    yield { kind: 'memory', address, pages, physical };
    return;
  }
  for (let page = 0; page < pages; page++) {
    const [at, frame] = [address + page * PAGE_SIZE, physical + page * PAGE_SIZE];
    if (kernel.physical.has(frame, PAGE_SIZE))
      yield { kind: 'memory', address: at, pages: 1, physical: frame };
    else yield { kind: 'notInDump', address: at, pages: 1 };
  }
}

/** Pages that the page tables do not have: what a page fault would have brought. */
function* untouched(kernel: Kernel, area: CoreArea, from: number, to: number): Generator<Piece> {
  if (area.isAnonymous) yield* range(from, to, 'zeros');
  else if (area.file === 0n) yield* range(from, to, 'unwanted');
  // Its cache counts in pages of its own size.
  else if (area.isHugetlb) yield* range(from, to, 'inFile');
  else {
    for (let at = from; at < to; at += PAGE_SIZE) yield* ofFile(kernel, area, at);
  }
}

function* ofFile(kernel: Kernel, area: CoreArea, at: number): Generator<Piece> {
  const found = cachedPageOf(kernel, area.file, area.pgoff + (at - area.start) / PAGE_SIZE);
  if (found.kind === 'page') yield* framesInDump(kernel, at, 1, found.physical);
  else if (found.kind === 'hole') yield { kind: 'zeros', address: at, pages: 1 };
  else yield { kind: found.kind === 'elsewhere' ? 'inFile' : 'unwanted', address: at, pages: 1 };
}

/** The vDSO's code is the kernel's: a process has only those pages mapped that it used. */
function* ofVdso(kernel: Kernel, mm: Mm, { start, end }: CoreArea): Generator<Piece> {
  const frames = vdsoPages(kernel, mm);
  for (const [i, physical] of frames.entries()) {
    const address = start + i * PAGE_SIZE;
    if (address < end) yield* framesInDump(kernel, address, 1, physical);
  }
  yield* range(start + frames.length * PAGE_SIZE, end, 'unreadable');
}

function* wanted(kernel: Kernel, mm: Mm, area: CoreArea): Generator<Piece> {
  if (area.special === '[vdso]') {
    yield* ofVdso(kernel, mm, area);
    return;
  }
  let at = area.start;
  for (const run of walkUserPages(kernel, mm.pgd, area.start, area.dumpEnd)) {
    yield* untouched(kernel, area, at, run.address);
    if (run.kind === 'present') yield* framesInDump(kernel, run.address, run.pages, run.pfn * PAGE_SIZE);
    else yield { kind: 'swapped', address: run.address, pages: run.pages };
    at = run.address + run.pages * PAGE_SIZE;
  }
  yield* untouched(kernel, area, at, area.dumpEnd);
}

/** All pages of an area, ascending. Where damage ends the way to them, the rest is unreadable. */
export function* piecesOf(kernel: Kernel, mm: Mm, area: CoreArea): Generator<Piece> {
  let at = area.start;
  if (area.dumpEnd > area.start) {
    try {
      for (const piece of wanted(kernel, mm, area)) {
        yield piece;
        at = piece.address + piece.pages * PAGE_SIZE;
      }
    } catch (error) {
      if (!isDamage(error)) throw error;
      yield* range(at, area.dumpEnd, 'unreadable');
      at = area.dumpEnd;
    }
  }
  yield* range(at, area.end, 'unwanted');
}
