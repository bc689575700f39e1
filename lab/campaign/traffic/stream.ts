import { createHash } from 'node:crypto';

/** Bytes of one block of a stream, as `servers.py` makes them. */
export const BLOCK = 65536;

function block(seed: number, k: number): Buffer {
  return createHash('shake128', { outputLength: BLOCK }).update(`${seed}:${k}`).digest();
}

/** The bytes of an endless stream, which tell their place: no piece of it is there twice. */
export class Stream {
  readonly #seed: number;
  #last: { readonly k: number; readonly bytes: Buffer } | undefined;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** @param at and `length` in bytes */
  slice(at: number, length: number): Buffer {
    const pieces: Buffer[] = [];
    for (let from = at; from < at + length; ) {
      const k = Math.floor(from / BLOCK);
      const skip = from - k * BLOCK;
      const piece = this.#block(k).subarray(skip, skip + at + length - from);
      pieces.push(piece);
      from += piece.length;
    }
    return pieces.length === 1 ? (pieces[0] ?? Buffer.alloc(0)) : Buffer.concat(pieces);
  }

  #block(k: number): Buffer {
    if (this.#last?.k !== k) this.#last = { k, bytes: block(this.#seed, k) };
    return this.#last.bytes;
  }
}

/** Where two pieces of the same length differ first. */
export function firstDifference(one: Buffer, other: Buffer): number {
  let at = 0;
  while (at < one.length && one[at] === other[at]) at++;
  return at;
}
