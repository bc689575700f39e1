import type { RestoreOptions } from '../criu/restore/index.ts';

/** One that is stuck leaves as much for all that come after it as it had. */
const SHARE = 0.5;

/**
 * What one run of CRIU may take of this program's time: when that is over, the program is ended, and with it
 * all that it holds. Each run has a part of what those before it have left.
 * @param minutes after which the program is ended, from its start
 * @param limit what these minutes are: `time-limit-minutes`
 * @param passedMilliseconds since the start of the program
 */
export function timeForOne(
  minutes: number,
  limit: string,
  passedMilliseconds = performance.now(),
): NonNullable<RestoreOptions['most']> {
  const left = minutes * 60 - passedMilliseconds / 1000;
  const seconds = Math.max(1, Math.floor(left * SHARE));
  return { seconds, why: `half of what was left of ${limit}` };
}
