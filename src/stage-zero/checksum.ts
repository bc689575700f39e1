import { symbols } from './code.ts';

const { SUM_LOW_START, SUM_HIGH_START, SUM_LOW_FACTOR, SUM_HIGH_FACTOR, SUM_ROTATE } = symbols;

/**
 * The checksum that stage zero makes (stage-zero.S): 8 bytes as the machine stores them. Bytes that are
 * missing in the last word are zeros.
 */
export function checksum(bytes: Uint8Array): Buffer {
  const words = wordsOf(bytes);
  let low: number = SUM_LOW_START;
  let high: number = SUM_HIGH_START;
  for (let i = 0; i < words.length; i += 2) {
    low = Math.imul(rotated(low ^ (words[i] ?? 0)), SUM_LOW_FACTOR);
    high = Math.imul(rotated(high ^ (words[i + 1] ?? 0)), SUM_HIGH_FACTOR);
  }
  const sum = Buffer.alloc(8);
  sum.writeInt32LE(low | 0, 0);
  sum.writeInt32LE(high | 0, 4);
  return sum;
}

function rotated(word: number): number {
  return (word << SUM_ROTATE) | (word >>> (32 - SUM_ROTATE));
}

/** The bytes as words of 32 bits, not copied where they lie at a multiple of 8. */
function wordsOf(bytes: Uint8Array): Int32Array {
  if (bytes.byteOffset % 4 === 0 && bytes.length % 8 === 0) {
    return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  }
  const whole = new Uint8Array(Math.ceil(bytes.length / 8) * 8);
  whole.set(bytes);
  return new Int32Array(whole.buffer);
}
