import { ProfileError } from './errors.ts';
import { hashBytes, hashName, type SymbolTable, searchSymbol, slotOf } from './symbols.ts';

/**
 * Symbols in arrays that are used as they come out of a profile's file: nothing is built when it is opened.
 */
export class ProfileSymbols implements SymbolTable {
  /** Names, each ended by a zero. */
  readonly names: Uint8Array;
  /** Where each name starts. */
  readonly starts: Uint32Array;
  /** Low and high word of each address; ascending. */
  readonly addresses: Uint32Array;
  /** Open-addressed hash table of symbol number + 1. */
  readonly slots: Int32Array;

  constructor(names: Uint8Array, starts: Uint32Array, addresses: Uint32Array, slots: Int32Array) {
    this.names = names;
    this.starts = starts;
    this.addresses = addresses;
    this.slots = slots;
    const isWhole =
      addresses.length === starts.length * 2 &&
      slots.length > starts.length &&
      Number.isInteger(Math.log2(slots.length));
    if (!isWhole || names.at(-1) !== 0)
      throw new ProfileError('the profile is damaged: its symbol table does not fit together');
  }

  lookup(name: string): bigint | undefined {
    const mask = this.slots.length - 1;
    const wanted = Buffer.from(`${name}\0`, 'latin1');
    let slot = slotOf(hashName(name)) & mask;
    for (let entry = this.slots[slot]!; entry !== 0; entry = this.slots[slot]!) {
      const start = this.starts[entry - 1]!;
      if (wanted.equals(this.names.subarray(start, start + wanted.length))) return this.#address(entry - 1);
      slot = (slot + 1) & mask;
    }
    return undefined;
  }

  symbolAt(address: bigint): { name: string; offset: number } | undefined {
    return searchSymbol(
      this.starts.length,
      (index) => this.#address(index),
      (index) => this.#name(index),
      address,
    );
  }

  #address(index: number): bigint {
    return (BigInt(this.addresses[index * 2 + 1]!) << 32n) | BigInt(this.addresses[index * 2]!);
  }

  #name(index: number): string {
    const start = this.starts[index]!;
    return Buffer.from(this.names.subarray(start, this.names.indexOf(0, start))).toString('latin1');
  }
}

const [NEWLINE, TAB, SPACE] = [10, 9, 32];
/** Sixteen digits of an address, a blank, the kind of symbol, a blank. */
const NAME_AT = 19;

/** The value of eight hexadecimal digits in lower case; -1 if they are none. */
function wordAt(text: Uint8Array, at: number): number {
  let value = 0;
  for (let i = at; i < at + 8; i++) {
    const byte = text[i]!;
    const digit = byte >= 48 && byte <= 57 ? byte - 48 : byte >= 97 && byte <= 102 ? byte - 87 : -1;
    if (digit === -1) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/** Symbols in the order of the text: words of addresses, and where in the text their names are. */
interface FoundSymbols {
  readonly count: number;
  readonly high: Uint32Array;
  readonly low: Uint32Array;
  readonly nameStarts: Uint32Array;
  readonly nameEnds: Uint32Array;
}

function findSymbols(text: Uint8Array): FoundSymbols {
  const room = Math.ceil(text.length / (NAME_AT + 2)) + 1;
  const words = (): Uint32Array => new Uint32Array(room);
  const [high, low, nameStarts, nameEnds] = [words(), words(), words(), words()];
  let count = 0;
  for (let at = 0; at < text.length; ) {
    const newline = text.indexOf(NEWLINE, at);
    const end = newline === -1 ? text.length : newline;
    const nameAt = at + NAME_AT;
    const [upper, lower] = end > nameAt ? [wordAt(text, at), wordAt(text, at + 8)] : [-1, -1];
    // A module's symbol has the module's name behind a tabulator.
    const isWhole = upper !== -1 && lower !== -1 && text[at + 16] === SPACE && text[nameAt - 1] === SPACE;
    if (isWhole && !hasBlank(text, nameAt, end)) {
      high[count] = upper;
      low[count] = lower;
      nameStarts[count] = nameAt;
      nameEnds[count] = end;
      count++;
    }
    at = end + 1;
  }
  return { count, high, low, nameStarts, nameEnds };
}

function hasBlank(text: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (text[i] === TAB || text[i] === SPACE) return true;
  return false;
}

/**
 * Symbols from the text of /proc/kallsyms; modules' are left out, their addresses say nothing about a dump.
 * Throws a ProfileError if the kernel hides addresses from the reader (all are zero).
 */
export function parseProcKallsyms(text: Uint8Array): ProfileSymbols {
  const found = findSymbols(text);
  const { count, high } = found;
  if (!high.subarray(0, count).some((word) => word >= 0x8000_0000)) {
    throw new ProfileError(
      '/proc/kallsyms hides the addresses: run as root, with sysctl kernel.kptr_restrict below 2',
    );
  }
  return buildSymbols(text, found, ascending(found));
}

/** Numbers of the symbols in the order of their addresses; the first of several with one stays the first. */
function ascending({ count, high, low }: FoundSymbols): Uint32Array {
  const order = new Uint32Array(count);
  const compare = (a: number, b: number): number => high[a]! - high[b]! || low[a]! - low[b]! || a - b;
  let isSorted = true;
  for (let i = 0; i < count; i++) {
    order[i] = i;
    if (i > 0 && compare(i - 1, i) > 0) isSorted = false;
  }
  // The kernel has them sorted in its tables, as a rule: to sort them anyway would take a third of the time.
  return isSorted ? order : order.sort(compare);
}

function buildSymbols(
  text: Uint8Array,
  { high, low, nameStarts, nameEnds }: FoundSymbols,
  order: Uint32Array,
): ProfileSymbols {
  const count = order.length;
  const starts = new Uint32Array(count);
  const addresses = new Uint32Array(count * 2);
  const slots = new Int32Array(2 ** Math.ceil(Math.log2(count * 2 + 2)));
  const mask = slots.length - 1;
  const names = new Uint8Array(order.reduce((sum, i) => sum + nameEnds[i]! - nameStarts[i]! + 1, 0));
  let bytes = 0;
  for (let n = 0; n < count; n++) {
    const i = order[n]!;
    const [start, end] = [nameStarts[i]!, nameEnds[i]!];
    starts[n] = bytes;
    // Names are short: a view of each, to copy it at once, would take longer.
    for (let at = start; at < end; at++) names[bytes++] = text[at]!;
    bytes++;
    addresses[n * 2] = low[i]!;
    addresses[n * 2 + 1] = high[i]!;
    let slot = slotOf(hashBytes(text, start, end)) & mask;
    while (slots[slot] !== 0) slot = (slot + 1) & mask;
    slots[slot] = n + 1;
  }
  return new ProfileSymbols(names, starts, addresses, slots);
}
