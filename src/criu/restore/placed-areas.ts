import { readFileSync } from 'node:fs';
import { errnoText } from '../../system/errno.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { LOWEST } from '../images/mm.ts';
import { areasOf, type Tracee } from './tracee.ts';

const [SYS_mmap, SYS_munmap] = [9, 11];
const PROT_NONE = 0;
/** MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE of mmap(2). */
const RESERVED = 0x02 | 0x20 | 0x4000 | 0x10_0000;
/** -1 as an int. */
const NO_FILE = 0xffff_ffff;
/** End of what mmap(2) gives who does not ask for more (DEFAULT_MAP_WINDOW). */
const HIGHEST = 2 ** 47 - PAGE_SIZE;

interface Range {
  readonly start: number;
  readonly end: number;
}

/** An area that is to be where it was. */
export interface PlacedArea {
  readonly start: number;
  readonly bytes: number;
}

type Held = Pick<Tracee, 'pid' | 'call'>;

function lowest(): number {
  const smallest = Number(readFileSync('/proc/sys/vm/mmap_min_addr', 'latin1'));
  return Math.max(LOWEST.end, Math.ceil(smallest / PAGE_SIZE) * PAGE_SIZE);
}

/** What is free between areas. */
function gapsBetween(areas: readonly Range[]): Range[] {
  const gaps: Range[] = [];
  let start = lowest();
  for (const area of [...areas].sort((a, b) => a.start - b.start)) {
    if (area.start > start) gaps.push({ start, end: Math.min(area.start, HIGHEST) });
    start = Math.max(start, area.end);
  }
  if (start < HIGHEST) gaps.push({ start, end: HIGHEST });
  return gaps.filter((gap) => gap.end > gap.start);
}

/**
 * What has to be taken so that nothing but the wanted places is free: of gaps that they are in all, of others
 * those that one of them fits into. Throws an Error if a wanted place is not free.
 */
export function reservations(areas: readonly Range[], wanted: readonly PlacedArea[]): Range[] {
  const least = Math.min(...wanted.map(({ bytes }) => bytes));
  let placed = 0;
  const ranges = gapsBetween(areas).flatMap((gap) => {
    const inside = wanted.filter(({ start, bytes }) => start >= gap.start && start + bytes <= gap.end);
    placed += inside.length;
    if (inside.length === 0) return gap.end - gap.start >= least ? [gap] : [];
    return gapsAround(gap, inside);
  });
  if (placed !== wanted.length) throw new Error('something else is mapped where an area was');
  return ranges;
}

function gapsAround(gap: Range, inside: readonly PlacedArea[]): Range[] {
  const ranges: Range[] = [];
  let start = gap.start;
  for (const area of [...inside].sort((a, b) => a.start - b.start)) {
    ranges.push({ start, end: area.start });
    start = area.start + area.bytes;
  }
  return [...ranges, { start, end: gap.end }].filter((range) => range.end > range.start);
}

function take(tracee: Held, { start, end }: Range): void {
  const result = tracee.call(tracee.pid, SYS_mmap, start, end - start, PROT_NONE, RESERVED, NO_FILE, 0);
  if (result !== start)
    throw new Error(`0x${start.toString(16)} cannot be taken (${result < 0 ? errnoText(-result) : result})`);
}

function giveBack(tracee: Held, { start, end }: Range): void {
  const result = tracee.call(tracee.pid, SYS_munmap, start, end - start);
  if (result !== 0) throw new Error(`munmap of 0x${start.toString(16)} fails (${errnoText(-result)})`);
}

/**
 * Has areas mapped where they were that the kernel maps where it likes (a file with a `get_unmapped_area` of
 * its own takes no address, with MAP_FIXED neither): there is no other place. What CRIU has taken of the
 * lowest pages for that is given back.
 *
 * @param map maps one, at address 0; returns what mmap(2) does
 * @throws Error if one is elsewhere
 */
export function placeAreas<Area extends PlacedArea>(
  tracee: Held,
  wanted: readonly Area[],
  map: (area: Area) => number,
): void {
  if (wanted.length === 0) return;
  const areas = areasOf(tracee.pid);
  const taken = reservations(areas, wanted);
  for (const range of taken) take(tracee, range);
  const places = wanted.map(({ start, bytes }) => ({ start, end: start + bytes }));
  for (const place of places) take(tracee, place);
  for (const [i, area] of wanted.entries()) {
    giveBack(tracee, places[i] ?? { start: 0, end: 0 });
    const address = map(area);
    if (address === area.start) continue;
    const where = address < 0 ? errnoText(-address) : `it is at 0x${address.toString(16)}`;
    throw new Error(`an area cannot be mapped at 0x${area.start.toString(16)}: ${where}`);
  }
  const isReserve = ({ start, end, access }: (typeof areas)[number]): boolean =>
    start === LOWEST.start && end === LOWEST.end && access === '---p';
  for (const range of [...taken, ...areas.filter(isReserve)]) giveBack(tracee, range);
}
