/** A kernel's symbols, from the dump's kallsyms or from a profile. */
export interface SymbolTable {
  /** Address of the first symbol of that name; per-CPU variables have their offset in the per-CPU area. */
  lookup(name: string): bigint | undefined;
  /** The last symbol at or below an address, if that is not far below. */
  symbolAt(address: bigint): { name: string; offset: number } | undefined;
}

/** Farther than this below an address no symbol is taken for what the address belongs to. */
const MAX_SYMBOL_BYTES = 0x4000_0000n;

/**
 * Finds the symbol at an address by bisection over `count` ascending addresses. Of several names of one
 * address it is the first, as in the kernel's own messages (get_symbol_pos, kernel/kallsyms.c).
 */
export function searchSymbol(
  count: number,
  addressOf: (index: number) => bigint,
  nameOf: (index: number) => string,
  address: bigint,
): { name: string; offset: number } | undefined {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (addressOf(middle) <= address) low = middle + 1;
    else high = middle;
  }
  if (low === 0) return undefined;
  while (low > 1 && addressOf(low - 2) === addressOf(low - 1)) low--;
  const offset = address - addressOf(low - 1);
  return offset > MAX_SYMBOL_BYTES ? undefined : { name: nameOf(low - 1), offset: Number(offset) };
}

const HASH_FACTOR = 31;

/** Polynomial hash of a symbol's name; {@link slotOf} spreads it. */
export function hashName(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = (Math.imul(hash, HASH_FACTOR) + text.charCodeAt(i)) | 0;
  return hash;
}

/** The same of a name's bytes, from `start` up to `end`. */
export function hashBytes(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, HASH_FACTOR) + bytes[i]!) | 0;
  return hash;
}

/** A hash's place in a table of a power of two of slots, before masking. */
export function slotOf(hash: number): number {
  return Math.imul(hash, 0x9e3779b1) >>> 8;
}
