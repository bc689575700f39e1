import { ProfileError } from './errors.ts';
import { hashName, type SymbolTable, searchSymbol, slotOf } from './symbols.ts';

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

const LINE = /^([0-9a-f]{16}) \S (\S+)$/;

/**
 * Symbols from the text of /proc/kallsyms; modules' are left out, their addresses say nothing about a dump.
 * Throws a ProfileError if the kernel hides addresses from the reader (all are zero).
 */
export function parseProcKallsyms(text: string): ProfileSymbols {
  const found: { name: string; address: bigint }[] = [];
  for (const line of text.split('\n')) {
    const match = LINE.exec(line);
    if (match?.[1] !== undefined && match[2] !== undefined)
      found.push({ name: match[2], address: BigInt(`0x${match[1]}`) });
  }
  if (!found.some(({ address }) => address >= 1n << 63n)) {
    throw new ProfileError(
      '/proc/kallsyms hides the addresses: run as root, with sysctl kernel.kptr_restrict below 2',
    );
  }
  found.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
  return buildSymbols(found);
}

function buildSymbols(symbols: readonly { name: string; address: bigint }[]): ProfileSymbols {
  const starts = new Uint32Array(symbols.length);
  const addresses = new Uint32Array(symbols.length * 2);
  const slots = new Int32Array(2 ** Math.ceil(Math.log2(symbols.length * 2 + 2)));
  const mask = slots.length - 1;
  let bytes = 0;
  symbols.forEach(({ name, address }, i) => {
    starts[i] = bytes;
    bytes += name.length + 1;
    addresses[i * 2] = Number(address & 0xffff_ffffn);
    addresses[i * 2 + 1] = Number(address >> 32n);
    let slot = slotOf(hashName(name)) & mask;
    while (slots[slot] !== 0) slot = (slot + 1) & mask;
    slots[slot] = i + 1;
  });
  const names = Buffer.from(symbols.map(({ name }) => `${name}\0`).join(''), 'latin1');
  return new ProfileSymbols(names, starts, addresses, slots);
}
