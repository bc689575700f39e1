import { COMMON_BYTES_PER_SECOND, secondsForRestores } from '../config/restore-time.ts';
import type { RestoreOptions } from '../criu/restore/index.ts';

/** One that is stuck leaves as much for all that come after it as it had, or what their size needs. */
const LEAST_SHARE = 0.5;
/** Of what is left, whatever is kept for rings. */
const LEAST_BESIDES_RINGS = 0.25;
/** What a restore takes besides reading. */
const EACH_SECONDS = 10;

/** A group that is restored, or waits for it. */
export interface ToRestore {
  readonly pagesBytes: number;
  /** For its rings, after CRIU: was promised when it was captured. */
  readonly ringSeconds: number;
}

/** What a program has for its restores. */
export interface RestoreTime {
  /** After which it is ended, from its start. */
  readonly minutes: number;
  /** What these minutes are: `time-limit-minutes`. */
  readonly limit: string;
}

/**
 * What one run of CRIU may take of this program's time: when that is over, the program is ended, and with it
 * all that it holds. The last group has all that is left, but for its rings and a little for what follows.
 * Others have half of it, or their part of the bytes that are still to be read if that is more: where all of
 * them can be read in time, none is ended for its size.
 * @param waiting groups that come after it
 * @param passedMilliseconds since the start of the program
 */
export function timeForOne(
  { minutes, limit }: RestoreTime,
  one: ToRestore,
  waiting: readonly ToRestore[],
  passedMilliseconds = performance.now(),
): NonNullable<RestoreOptions['most']> {
  const left = secondsForRestores(minutes, passedMilliseconds / 1000);
  const rings = [one, ...waiting].reduce((sum, { ringSeconds }) => sum + ringSeconds, 0);
  const forCriu = Math.max(left - rings, left * LEAST_BESIDES_RINGS);
  const others = waiting.reduce((sum, other) => sum + secondsOf(other), 0);
  const share = waiting.length === 0 ? 1 : Math.max(LEAST_SHARE, secondsOf(one) / (secondsOf(one) + others));
  const who = waiting.length === 0 ? 'all' : 'its part';
  return { seconds: Math.max(1, Math.floor(forCriu * share)), why: `${who} of what was left of ${limit}` };
}

function secondsOf({ pagesBytes }: ToRestore): number {
  return EACH_SECONDS + pagesBytes / COMMON_BYTES_PER_SECOND;
}
