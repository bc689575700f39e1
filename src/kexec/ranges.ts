import type { Range } from '../system/range.ts';

/** What is left of ranges without some holes; ranges of nothing are left out. */
export function subtractRanges(ranges: readonly Range[], holes: readonly Range[]): Range[] {
  let left: Range[] = ranges.map(({ start, end }) => ({ start, end }));
  for (const hole of holes)
    left = left.flatMap(({ start, end }) =>
      [
        { start, end: Math.min(end, hole.start) },
        { start: Math.max(start, hole.end), end },
      ].filter((part) => part.start < part.end),
    );
  return left.filter(({ start, end }) => start < end);
}

/**
 * Ranges in order, those that touch or overlap joined: /proc/iomem cuts System RAM where the boot loader left
 * something in it (e820__reserve_setup_data).
 */
export function joinRanges(ranges: readonly Range[]): Range[] {
  const joined: Range[] = [];
  for (const { start, end } of ranges.toSorted((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last === undefined || last.end < start) joined.push({ start, end });
    else joined[joined.length - 1] = { start: last.start, end: Math.max(last.end, end) };
  }
  return joined;
}

/** The part of a range that lies within another; undefined if there is none. */
export function intersection(a: Range, b: Range): Range | undefined {
  const common = { start: Math.max(a.start, b.start), end: Math.min(a.end, b.end) };
  return common.start < common.end ? common : undefined;
}

/** For messages: `0x6a000000-0x7dffffff`, as /proc/iomem has it. */
export function rangeText({ start, end }: Range): string {
  return `0x${start.toString(16)}-0x${(end - 1).toString(16)}`;
}
