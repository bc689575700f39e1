import { closeSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { waitForWriteBack } from '../../system/file-calls.ts';
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

/**
 * Keeps the large files of directories of images open, so that the kernel does not forget their inodes, and
 * with them that they could not be written, when it needs memory.
 */
export class PinnedImages {
  readonly #open = new Map<string, readonly number[]>();

  pin(directory: string): void {
    const large = filesIn(directory).filter((path) => lstatSync(path).size >= PINNED_BYTES);
    this.#open.set(directory, large.map(openImage));
  }

  /** To be called before they are removed: what is open takes its room until it is closed. */
  release(directory: string): void {
    for (const fd of this.#open.get(directory) ?? []) closeSync(fd);
    this.#open.delete(directory);
  }
}
