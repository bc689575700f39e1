import { PAGE_SIZE, pageEnd } from '../system/page.ts';
import type { Range } from '../system/range.ts';
import { KexecError } from './error.ts';
import { intersection, rangeText, subtractRanges } from './ranges.ts';

/** A segment that wants a place. */
export interface PlaceRequest {
  readonly name: string;
  /** Of memory; rounded up to whole pages. */
  readonly memoryBytes: number;
  /** A power of two; a page, or what is left out, is the least. */
  readonly alignment?: number | undefined;
  /** Lowest address; 0 if left out. */
  readonly minimum?: number | undefined;
  /** End (exclusive) of what it may take; no limit if left out. */
  readonly limit?: number | undefined;
}

/**
 * Physical memory that is still free in some ranges. Each segment takes the highest place that it fits into.
 */
export class FreeMemory {
  private free: Range[];
  private readonly advice: string;

  /**
   * @param ranges to place segments in
   * @param advice what to do if there is not enough: the end of a message
   */
  constructor(ranges: readonly Range[], advice: string) {
    this.free = ranges.map(({ start, end }) => ({ start: pageEnd(start), end: end - (end % PAGE_SIZE) }));
    this.advice = advice;
  }

  /**
   * Takes memory for a segment: whole pages.
   * @throws KexecError that says how many bytes are missing
   */
  take(request: PlaceRequest): Range {
    const bytes = pageEnd(request.memoryBytes);
    const alignment = Math.max(request.alignment ?? PAGE_SIZE, PAGE_SIZE);
    const usable = this.usableFor(request);
    const starts = usable
      .map(({ start, end }) => ({ start, at: Math.floor((end - bytes) / alignment) * alignment }))
      .filter(({ start, at }) => at >= start)
      .map(({ at }) => at);
    if (starts.length === 0) throw this.noRoom(request, bytes, alignment, usable);
    const start = Math.max(...starts);
    const range = { start, end: start + bytes };
    this.free = subtractRanges(this.free, [range]);
    return range;
  }

  private usableFor({ minimum = 0, limit = Number.MAX_SAFE_INTEGER }: PlaceRequest): Range[] {
    return this.free.flatMap((range) => intersection(range, { start: minimum, end: limit }) ?? []);
  }

  private noRoom(
    { name, limit }: PlaceRequest,
    bytes: number,
    alignment: number,
    usable: Range[],
  ): KexecError {
    const sizes = usable.map(({ start, end }) => end - Math.ceil(start / alignment) * alignment);
    const largest = Math.max(0, ...sizes);
    const below = limit === undefined ? '' : ` below 0x${limit.toString(16)}`;
    const where = this.free.length === 0 ? 'none' : this.free.map(rangeText).join(', ');
    return new KexecError(
      `there is no room for ${name}: it needs ${bytes} bytes in one piece${below}, aligned to ${alignment}; ` +
        `${bytes - largest} bytes are missing (free: ${where}); ${this.advice}`,
    );
  }
}
