import { closeSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { waitForWriteBack } from '../../system/file-calls.ts';
import { limitOf, RLIMIT_NOFILE } from '../../system/process-settings.ts';
import { messageOf } from '../../system/thrown.ts';
import { openImage } from './open-image.ts';

/** The regular files of a directory of images and of those in it. */
function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => lstatSync(path).isFile());
}

/** Throws what the disk has said of the file at a path. */
export type LookAtWriteBack = (path: string) => void;

function lookAtWriteBack(path: string): void {
  const fd = openImage(path);
  try {
    waitForWriteBack(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Looks whether images could be written to their disk. To be called when all of them have been read: what is
 * read comes from memory as long as that has it, and from the disk after that; what could not be written is
 * something else there, and nobody else is told. What is not yet written was read from memory.
 * @param look see `waitForWriteBack`
 * @returns one end of a sentence for each file that could not be
 */
export function writeBackProblems(directory: string, look: LookAtWriteBack = lookAtWriteBack): string[] {
  return filesIn(directory).flatMap((path) => {
    try {
      look(path);
      return [];
    } catch (error) {
      return [
        `the disk did not take all of ${path}, and what was read of it may be wrong: ${messageOf(error)}`,
      ];
    }
  });
}

/** Of smaller files there may be thousands: what became of them is seen when they are opened anew. */
const PINNED_BYTES = 64 << 10;
/** A descriptor each: all others need theirs. */
const MOST_PINNED = 1024;
const PINNED_SHARE = 0.25;

interface Pinned {
  readonly fd: number;
  readonly directory: string;
  readonly path: string;
  readonly bytes: number;
}

/**
 * Keeps the largest files of directories of images open, so that the kernel does not forget their inodes, and
 * with them that they could not be written, when it needs memory. Of those that are not kept open that is
 * seen as long as the kernel has not forgotten them.
 */
export class PinnedImages {
  #open: Pinned[] = [];

  /**
   * Closes smaller files of any directory for larger ones. If it throws, none of this directory is kept open.
   */
  pin(directory: string): void {
    try {
      this.#pin(directory);
    } catch (error) {
      this.release(directory);
      throw error;
    }
  }

  #pin(directory: string): void {
    const most = Math.min(MOST_PINNED, Math.floor(Number(limitOf(0, RLIMIT_NOFILE).soft) * PINNED_SHARE));
    const large = filesIn(directory)
      .map((path) => ({ directory, path, bytes: lstatSync(path).size }))
      .filter(({ bytes }) => bytes >= PINNED_BYTES);
    const wanted: (Pinned | Omit<Pinned, 'fd'>)[] = [...this.#open, ...large]
      .toSorted((a, b) => b.bytes - a.bytes)
      .slice(0, most);
    const kept = new Set(wanted);
    this.#keep((one) => kept.has(one));
    for (const one of wanted) if (!('fd' in one)) this.#open.push({ ...one, fd: openImage(one.path) });
  }

  /** To be called before they are removed: what is open takes its room until it is closed. */
  release(directory: string): void {
    this.#keep((one) => one.directory !== directory);
  }

  #keep(isKept: (one: Pinned) => boolean): void {
    const closed = this.#open.filter((one) => !isKept(one));
    this.#open = this.#open.filter(isKept);
    for (const { fd } of closed) closeSync(fd);
  }
}
