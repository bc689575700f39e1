/** Bits of one word. */
const WORD_BITS = 32;

/**
 * A set of flags of up to 64 bits, as two unsigned words: any bit may be set in a sound kernel (a page's node
 * is in the top ones), so it is no number, and a bigint for each page and each area would be slow.
 */
export class Flags {
  readonly low: number;
  readonly high: number;

  constructor(low: number, high: number) {
    this.low = low >>> 0;
    this.high = high >>> 0;
  }

  /** Whether bit `number` (0 to 63) is set. */
  has(number: number): boolean {
    return number < WORD_BITS
      ? ((this.low >>> number) & 1) === 1
      : ((this.high >>> (number - WORD_BITS)) & 1) === 1;
  }

  /** Whether bits `number` and up are all clear. */
  isBelow(number: number): boolean {
    return number < WORD_BITS
      ? this.high === 0 && this.low >>> number === 0
      : this.high >>> (number - WORD_BITS) === 0;
  }

  toString(): string {
    return `0x${this.high.toString(16)}${this.low.toString(16).padStart(8, '0')}`.replace(/^0x0+(?=.)/, '0x');
  }
}
