import { randomBytes } from 'node:crypto';
import type { Range } from '../system/range.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import { Kcore } from '../vmcore/kcore.ts';
import type { CpioEntry } from './cpio.ts';

/** What is read at a time where a mark is looked for. */
const PIECE_BYTES = 8 * 2 ** 20;

/** A text that no other initramfs has: by it the loaded crash kernel is known as the one that `arm` built. */
export function newMark(): string {
  return `otherworld-${randomBytes(24).toString('hex')}`;
}

export const MARK_PATH = 'otherworld/mark';

/** The file that carries a mark; nobody reads it there. */
export function markFile(mark: string): CpioEntry {
  return { path: MARK_PATH, mode: 0o400, data: Buffer.from(mark, 'latin1') };
}

/** The part of Kcore that is used here. */
export interface KcoreMemory {
  readPhysical(address: number, length: number): Buffer;
}

/**
 * Where in the reserved memory a mark lies: from the top down, as kexec loads.
 * @returns a physical address; undefined if it is not there
 */
export function findMark(memory: KcoreMemory, mark: string, reserved: readonly Range[]): number | undefined {
  const wanted = Buffer.from(mark, 'latin1');
  for (const { start, end } of reserved.toReversed()) {
    for (let top = end; top > start; top -= PIECE_BYTES) {
      const bottom = Math.max(start, top - PIECE_BYTES);
      // With the beginning of the piece above: the mark may lie across.
      const at = memory.readPhysical(bottom, Math.min(end, top + wanted.length) - bottom).indexOf(wanted);
      if (at !== -1) return bottom + at;
    }
  }
  return undefined;
}

/** A mark that was found after loading. */
export interface LoadedMark {
  readonly text: string;
  /** Physical; absent if it could not be looked for. */
  readonly address?: number | undefined;
}

/**
 * Whether the crash kernel that is loaded is the one with this mark.
 * @returns a sentence why it cannot be told, where it cannot
 */
export function isStillLoaded({ text, address }: LoadedMark): boolean | string {
  if (address === undefined)
    return 'when it was loaded, the kernel did not show it in its memory (/proc/kcore)';
  try {
    using memory = new Kcore();
    return memory.readPhysical(address, text.length).equals(Buffer.from(text, 'latin1'));
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return `the kernel does not show what is loaded: ${messageOf(error)}`;
  }
}

/** Where the mark of what has just been loaded lies; undefined if the kernel does not show it. */
export function locateMark(mark: string, reserved: readonly Range[]): number | undefined {
  try {
    using memory = new Kcore();
    return findMark(memory, mark, reserved);
  } catch (error) {
    if (codeOf(error) !== undefined) return undefined;
    throw error;
  }
}
