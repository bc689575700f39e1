import { setTimeout as sleep } from 'node:timers/promises';
import type { Kernel } from '../vmcore/kernel.ts';
import { agree, type Conclusion, concludeLooks } from './conclude.ts';
import { type CheckRequest, type Look, lookAt } from './look.ts';

/** How often processes are looked at that are found other each time. */
const MOST_LOOKS = 5;
/** Between looks: time for a call to end, or a thread to leave its CPU. Milliseconds; it grows with each. */
const PAUSE = 50;

/**
 * Says what would become of processes of a living kernel if it died now. It is looked at until two looks
 * agree. Nothing is changed or held up meanwhile. A damaged kernel is not an error: see `captureProcesses`.
 *
 * @param look gives the kernel as it is when it is called
 */
export async function checkProcesses(
  look: () => Kernel,
  request: CheckRequest,
  mostLooks = MOST_LOOKS,
): Promise<Conclusion[]> {
  const looks: Look[] = [];
  while (looks.length < mostLooks && !agree(looks)) {
    if (looks.length > 0) await sleep(PAUSE * looks.length);
    looks.push(lookAt(look(), request));
  }
  return concludeLooks(looks);
}
