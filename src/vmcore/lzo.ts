import { VmcoreError } from './errors.ts';

function damaged(): VmcoreError {
  return new VmcoreError('its LZO data is wrong');
}

/** Input and output of one decompression, with every access checked. */
class Stream {
  readonly #input: Uint8Array;
  readonly #output: Uint8Array;
  at = 0;
  length = 0;

  constructor(input: Uint8Array, output: Uint8Array) {
    this.#input = input;
    this.#output = output;
  }

  byte(): number {
    const value = this.#input[this.at++];
    if (value === undefined) throw damaged();
    return value;
  }

  word(): number {
    return this.byte() | (this.byte() << 8);
  }

  /** A count that did not fit its instruction: 255 for each zero byte, then the first other byte. */
  extended(base: number): number {
    let total = base;
    for (let byte = this.byte(); ; byte = this.byte()) {
      if (byte !== 0) return total + byte;
      total += 255;
    }
  }

  literals(count: number): void {
    if (this.at + count > this.#input.length || this.length + count > this.#output.length) throw damaged();
    this.#output.set(this.#input.subarray(this.at, this.at + count), this.length);
    this.at += count;
    this.length += count;
  }

  match(distance: number, count: number): void {
    if (distance > this.length || this.length + count > this.#output.length) throw damaged();
    for (let i = 0; i < count; i++, this.length++)
      this.#output[this.length] = this.#output[this.length - distance]!;
  }
}

/**
 * Instructions below 16 mean different things after a match without literals (0), after 1 to 3 of them, and
 * after a run (4).
 */
function shortInstruction(stream: Stream, code: number, state: number): number {
  if (state === 0) {
    stream.literals(code === 0 ? stream.extended(18) : code + 3);
    return 4;
  }
  const distance = (stream.byte() << 2) + (code >> 2);
  if (state === 4) stream.match(distance + 2049, 3);
  else stream.match(distance + 1, 2);
  return code & 3;
}

/** One instruction; returns the number of literals that follow it, or -1 at the end of the stream. */
function instruction(stream: Stream, code: number): number {
  if (code >= 64) {
    const count = code >= 128 ? 5 + ((code >> 5) & 3) : 3 + ((code >> 5) & 1);
    stream.match((stream.byte() << 3) + ((code >> 2) & 7) + 1, count);
    return code & 3;
  }
  if (code >= 32) {
    const count = (code & 31) === 0 ? stream.extended(33) : (code & 31) + 2;
    const word = stream.word();
    stream.match((word >> 2) + 1, count);
    return word & 3;
  }
  const count = (code & 7) === 0 ? stream.extended(9) : (code & 7) + 2;
  const word = stream.word();
  const distance = 16384 + ((code & 8) << 11) + (word >> 2);
  if (distance === 16384) return -1;
  stream.match(distance, count);
  return word & 3;
}

/**
 * Decompresses an LZO1X stream (the format is described in the kernel's Documentation/staging/lzo.rst) into
 * `output`; returns the number of bytes written. Written here because the npm registry has no LZO library
 * that is maintained, free of system libraries and of a licence that fits. Throws a VmcoreError if the data
 * is damaged.
 */
export function lzoDecompress(input: Uint8Array, output: Uint8Array): number {
  const stream = new Stream(input, output);
  let state = 0;
  const first = input[0] ?? 0;
  if (first > 17) {
    stream.at = 1;
    stream.literals(first - 17);
    state = first >= 21 ? 4 : first - 17;
  }
  for (;;) {
    const code = stream.byte();
    if (code < 16) {
      const next = shortInstruction(stream, code, state);
      if (next !== 4) stream.literals(next);
      state = next;
      continue;
    }
    const next = instruction(stream, code);
    if (next < 0) return stream.length;
    stream.literals(next);
    state = next;
  }
}
