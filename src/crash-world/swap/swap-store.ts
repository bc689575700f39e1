import { closeSync, readSync, writeSync } from 'node:fs';
import type { SwapExtent } from '../../linux/readers/swap-areas.ts';
import { SwapError } from '../../linux/readers/swap-areas.ts';
import { swapPlace } from '../../linux/readers/swap-entries.ts';
import { forgetCached } from '../../system/file-calls.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { sendFile } from '../../system/sendfile.ts';
import { codeOf, messageOf } from '../../system/thrown.ts';
import type { StoredPages } from '../../vmcore/stored-pages.ts';
import type { OpenArea } from './open-area.ts';

/** Errors of the file that is written to. */
const OF_THE_FILE = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
/** Handed on at a time: bounds what the page cache has of the device. */
const PIECE = 1 << 20;

/** Bytes that lie in a row on a device. */
interface Part {
  readonly area: OpenArea;
  readonly at: number;
  readonly length: number;
}

/** The swap areas of the dead kernel, by the addresses of `src/linux/readers/swap-entries.ts`. */
export class SwapStore implements StoredPages {
  readonly #areas: ReadonlyMap<number, OpenArea | string>;

  /** @param areas by their numbers; a sentence for one that is not read */
  constructor(areas: ReadonlyMap<number, OpenArea | string>) {
    this.#areas = areas;
  }

  has(address: number, length: number): boolean {
    const { type, offset } = swapPlace(address);
    if (type === undefined) return true;
    const area = this.#areas.get(type);
    return typeof area === 'object' && offset + length <= area.slots * PAGE_SIZE;
  }

  problem(address: number): string | undefined {
    const { type } = swapPlace(address);
    const area = type === undefined ? undefined : (this.#areas.get(type) ?? `swap area ${type} is not there`);
    return typeof area === 'string' ? area : undefined;
  }

  read(address: number, to: Uint8Array): void {
    if (swapPlace(address).type === undefined) {
      to.fill(0);
      return;
    }
    let done = 0;
    for (const part of this.#parts(address, to.length)) {
      readPart(part, to.subarray(done, done + part.length));
      done += part.length;
    }
  }

  write(fd: number, address: number, length: number): void {
    if (swapPlace(address).type === undefined) writeZeros(fd, length);
    else for (const part of this.#parts(address, length)) sendPart(fd, part);
  }

  close(): void {
    for (const area of this.#areas.values()) if (typeof area === 'object') closeSync(area.fd);
  }

  *#parts(address: number, length: number): Generator<Part> {
    const { type, offset } = swapPlace(address);
    const area = this.#areas.get(type ?? -1);
    if (typeof area !== 'object') throw new SwapError(this.problem(address) ?? 'there is no such swap area');
    for (let done = 0; done < length; ) {
      const byte = offset + done;
      const { slot, slots, block } = extentOf(area, Math.floor(byte / PAGE_SIZE));
      const inExtent = byte - slot * PAGE_SIZE;
      const part = Math.min(length - done, slots * PAGE_SIZE - inExtent, PIECE);
      yield { area, at: block * PAGE_SIZE + inExtent, length: part };
      done += part;
    }
  }
}

function extentOf({ extents, name }: OpenArea, slot: number): SwapExtent {
  let [low, high] = [0, extents.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const extent = extents[middle]!;
    if (slot < extent.slot) high = middle - 1;
    else if (slot >= extent.slot + extent.slots) low = middle + 1;
    else return extent;
  }
  throw new SwapError(`slot ${slot} of the swap area ${name} is nowhere on its device`);
}

function unreadable({ area, at }: Part, why: string): SwapError {
  return new SwapError(`the swap area ${area.name} cannot be read at byte ${at} of its device: ${why}`);
}

function readPart(part: Part, to: Uint8Array): void {
  for (let done = 0; done < to.length; ) {
    let count: number;
    try {
      count = readSync(part.area.fd, to, done, to.length - done, part.at + done);
    } catch (error) {
      throw unreadable(part, messageOf(error));
    }
    if (count === 0) throw unreadable(part, 'it ends there');
    done += count;
  }
}

function sendPart(fd: number, part: Part): void {
  const { area, at, length } = part;
  try {
    if (sendFile(fd, area.fd, at, length) !== length) throw unreadable(part, 'it ends there');
  } catch (error) {
    // The call does not say which of the two files failed.
    if (!OF_THE_FILE.has(codeOf(error) ?? '')) readPart(part, Buffer.alloc(length));
    throw error;
  }
  forgetCached(area.fd, at, length);
}

const ZEROS = Buffer.alloc(1 << 16);

function writeZeros(fd: number, length: number): void {
  for (let done = 0; done < length; ) {
    done += writeSync(fd, ZEROS, 0, Math.min(ZEROS.length, length - done));
  }
}
