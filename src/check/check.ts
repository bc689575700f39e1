import { setTimeout as sleep } from 'node:timers/promises';
import type { Kernel } from '../vmcore/kernel.ts';
import { agree, agreeOrFree, type Conclusion, concludeLooks } from './conclude.ts';
import { type CheckRequest, type Look, lookAt } from './look.ts';

/** When processes have been looked at often enough. */
export interface Patience {
  /** How often those are looked at that are found other each time. */
  readonly mostLooks: number;
  isEnough(looks: readonly Look[]): boolean;
  /**
   * Before the second look: time for a call to end, or a thread to leave its CPU. It grows by as much with
   * each look.
   */
  readonly pauseMilliseconds: number;
}

const PAUSE = 50;

/** For who wants to know it exactly. */
export const exact: Patience = { mostLooks: 5, isEnough: agree, pauseMilliseconds: PAUSE };

/** For who names those alone that would not come back, and has something else to do. */
export const brief: Patience = { mostLooks: 3, isEnough: agreeOrFree, pauseMilliseconds: PAUSE };

/**
 * Says what would become of processes of a living kernel if it died now. It is looked at until two looks
 * agree, or until that is enough for who asks. Nothing is changed or held up meanwhile. A damaged kernel is
 * not an error: see `captureProcesses`.
 *
 * @param look gives the kernel as it is when it is called
 */
export async function checkProcesses(
  look: () => Kernel,
  request: CheckRequest,
  { mostLooks, isEnough, pauseMilliseconds }: Patience = exact,
): Promise<Conclusion[]> {
  const looks: Look[] = [];
  while (looks.length < mostLooks && !isEnough(looks)) {
    if (looks.length > 0) await sleep(pauseMilliseconds * looks.length);
    looks.push(lookAt(look(), request));
  }
  return concludeLooks(looks);
}
