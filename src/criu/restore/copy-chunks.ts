import { readSync, writeSync } from 'node:fs';
import type { StoredContent } from '../images/content.ts';

/** Bytes that are copied at a time. */
const BLOCK = 1 << 20;

/** Copies stored content to where it belongs in another open file. Throws an Error if it is too short. */
export function copyChunks(from: number, to: number, { contentOffset, chunks }: StoredContent): void {
  const block = Buffer.allocUnsafe(BLOCK);
  let at = contentOffset;
  for (const { offset, length } of chunks) {
    for (let done = 0; done < length; ) {
      const got = readSync(from, block, 0, Math.min(BLOCK, length - done), at + done);
      if (got === 0) throw new Error('the content in the images is too short');
      let written = 0;
      while (written < got) written += writeSync(to, block, written, got - written, offset + done + written);
      done += got;
    }
    at += length;
  }
}
