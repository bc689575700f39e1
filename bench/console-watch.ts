import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from '../lab/error.ts';
import { guestPaths } from '../lab/guest.ts';

/**
 * How often the console is looked at, in milliseconds: the resolution of every time that is taken from it.
 */
export const RESOLUTION_MS = 20;

/** A line of the console and when it was complete, by this machine's monotonic clock, in seconds. */
interface Line {
  readonly at: number;
  readonly text: string;
}

/**
 * Follows a guest's console and notes when each line came: one clock, outside the guest, for things that
 * happen under different kernels.
 */
export class ConsoleWatch {
  readonly #guest: string;
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;
  readonly #lines: Line[] = [];
  #read: number;
  #rest = '';

  /** Begins with what the console says from now on. */
  constructor(guest: string) {
    this.#guest = guest;
    this.#fd = openSync(guestPaths(guest).consoleLog, 'r');
    this.#read = fstatSync(this.#fd).size;
    this.#timer = setInterval(() => this.#look(), RESOLUTION_MS);
  }

  /**
   * Waits for a line since `since` (seconds of this machine's clock) that matches; one that has come already
   * counts.
   * @returns when it came
   * @throws LabError if it does not come in time
   */
  async waitFor(words: RegExp, since: number, seconds: number): Promise<number> {
    const end = secondsNow() + seconds;
    for (;;) {
      const line = this.#lines.find(({ at, text }) => at >= since && words.test(text));
      if (line !== undefined) return line.at;
      if (secondsNow() > end) {
        const tail = this.#lines.slice(-20).map(({ text }) => text);
        throw new LabError(
          `the console of ${this.#guest} did not say ${words} within ${seconds} s; its end:\n${tail.join('\n')}`,
        );
      }
      await sleep(RESOLUTION_MS);
    }
  }

  /**
   * When the kernel that announced itself first after `since` began to count its time: each of its lines
   * bears a time and came somewhat later, and the line that came least late tells.
   */
  kernelStart(since: number): number {
    const first = this.#lines.findIndex(({ at, text }) => at >= since && text.includes('Linux version'));
    if (first < 0) throw new LabError(`the console of ${this.#guest} shows no kernel that starts`);
    const starts = this.#lines.slice(first).flatMap(({ at, text }) => {
      const stamp = /^\[ *(\d+\.\d+)\]/.exec(text)?.[1];
      return stamp === undefined ? [] : [at - Number(stamp)];
    });
    return Math.min(...starts);
  }

  close(): void {
    clearInterval(this.#timer);
    closeSync(this.#fd);
  }

  #look(): void {
    const at = secondsNow();
    const length = fstatSync(this.#fd).size - this.#read;
    if (length <= 0) return;
    const buffer = Buffer.alloc(length);
    this.#read += readSync(this.#fd, buffer, 0, length, this.#read);
    const parts = (this.#rest + buffer.toString('latin1')).split(/\r?\n/);
    this.#rest = parts.pop() ?? '';
    this.#lines.push(...parts.map((text) => ({ at, text })));
  }
}

/** This machine's monotonic clock in seconds. */
export function secondsNow(): number {
  return performance.now() / 1000;
}
