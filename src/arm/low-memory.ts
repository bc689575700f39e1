import { LOW_PAGES } from '../stage-zero/area.ts';
import { PAGE_SIZE } from '../system/page.ts';
import type { IomemEntry } from './iomem.ts';

/** A processor starts in a page below this, whose number fits into a byte; above it there is no RAM. */
const LOW_END = 0xa0000;
/** Where the kernel's own trampoline and the firmware's tables seldom are; any other place would do. */
const LOW_WANTED = 0x10000;

/** RAM below 1 MiB for what the other processors begin with; undefined if there is none. */
export function lowMemory(resources: readonly IomemEntry[]): number | undefined {
  const bytes = LOW_PAGES * PAGE_SIZE;
  const places = resources
    .filter(({ name, depth }) => name === 'System RAM' && depth === 0)
    .map(({ start, end }) => ({
      start: Math.max(PAGE_SIZE, Math.ceil(start / PAGE_SIZE) * PAGE_SIZE),
      end: Math.min(LOW_END, end),
    }))
    .filter(({ start, end }) => end - start >= bytes);
  const wanted = places.find(({ start, end }) => start <= LOW_WANTED && LOW_WANTED + bytes <= end);
  return wanted === undefined ? places[0]?.start : LOW_WANTED;
}
