import { VmcoreError } from './errors.ts';
import type { KernelMemory } from './memory.ts';
import { hashName, type SymbolTable, searchSymbol, slotOf } from './symbols.ts';
import { vmcoreinfoSymbol } from './vmcoreinfo.ts';

/** More symbols than any kernel has. */
const MAX_SYMBOLS = 1 << 22;
/** Longest compressed name: one length byte or two, then at most KSYM_NAME_LEN tokens. */
const MAX_NAME_BYTES = 514;
const TOKENS = 256;
const HASH_FACTOR = 31;

/** The kernel's own symbol table, compressed as scripts/kallsyms.c left it in the image. */
export interface KallsymsTables {
  readonly count: number;
  /**
   * `kallsyms_names`: for each symbol a length (one byte, or two if bit 7 is set) and that many token
   * numbers.
   */
  readonly names: Uint8Array;
  /** `kallsyms_token_table`: 256 strings, each ended by a zero. */
  readonly tokens: Uint8Array;
  /** `kallsyms_token_index`: where each of them starts, 256 little-endian 16-bit numbers. */
  readonly tokenIndex: Uint8Array;
  /** `kallsyms_offsets`: 32 bits for each symbol. */
  readonly offsets: Uint8Array;
  /** `kallsyms_relative_base`. */
  readonly relativeBase: bigint;
}

/** Reads the tables from a dump at the addresses that VMCOREINFO gives (kernel 6.0 on). */
export function readKallsymsTables(memory: KernelMemory, info: ReadonlyMap<string, string>): KallsymsTables {
  const at = (name: string): bigint => {
    const address = vmcoreinfoSymbol(info, `kallsyms_${name}`);
    if (address === undefined) {
      throw new VmcoreError(
        `VMCOREINFO has no kallsyms_${name}: kernels before 6.0 need a profile, which \`otherworld arm\` writes`,
      );
    }
    return address;
  };
  const count = memory.u32(at('num_syms'));
  if (count === 0 || count > MAX_SYMBOLS) throw new VmcoreError(`kallsyms is damaged: ${count} symbols`);
  const names = at('names');
  const after = ['num_syms', 'token_table', 'token_index', 'offsets', 'relative_base'].map(at);
  const limit = after
    .filter((address) => address > names)
    .reduce(smaller, names + BigInt(count * MAX_NAME_BYTES));
  const tokenTable = at('token_table');
  const tokenIndex = at('token_index');
  const tokenBytes =
    tokenIndex > tokenTable && tokenIndex - tokenTable < 0x20000n ? tokenIndex - tokenTable : 0x10000n;
  return {
    count,
    names: memory.read(names, Number(limit - names)),
    tokens: memory.read(tokenTable, Number(tokenBytes)),
    tokenIndex: memory.read(tokenIndex, TOKENS * 2),
    offsets: memory.read(at('offsets'), count * 4),
    relativeBase: memory.u64(at('relative_base')),
  };
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/** A token's text, and what it contributes to the hash of a name that it is part of. */
interface Tokens {
  readonly text: readonly string[];
  /**
   * Hash of the token, and of the token without its first character (which, in a name's first token, is the
   * type).
   */
  readonly hash: Int32Array;
  readonly hashTail: Int32Array;
  /** HASH_FACTOR to the power of the token's length. */
  readonly power: Int32Array;
}

function decodeTokens({ tokens, tokenIndex }: KallsymsTables): Tokens {
  const all = Buffer.from(tokens.buffer, tokens.byteOffset, tokens.length);
  const text: string[] = [];
  for (let i = 0; i < TOKENS; i++) {
    const start = tokenIndex[i * 2]! | (tokenIndex[i * 2 + 1]! << 8);
    const end = all.indexOf(0, start);
    if (start >= all.length || end < 0)
      throw new VmcoreError('kallsyms is damaged: a token lies outside its table');
    text.push(all.toString('latin1', start, end));
  }
  return {
    text,
    hash: Int32Array.from(text, hashName),
    hashTail: Int32Array.from(text, (token) => hashName(token.slice(1))),
    power: Int32Array.from(text, (token) => [...token].reduce((power) => Math.imul(power, HASH_FACTOR), 1)),
  };
}

/**
 * Symbols by name and by address. Names are indexed by their hash, computed from the hashes of their tokens
 * without expanding any, so that starting costs milliseconds for 200,000 symbols.
 */
export class Kallsyms implements SymbolTable {
  readonly count: number;
  readonly #tables: KallsymsTables;
  readonly #tokens: Tokens;
  readonly #offsets: Int32Array;
  /** Where in `names` a symbol's tokens start. */
  readonly #starts: Uint32Array;
  /** Open-addressed hash table of symbol number + 1. */
  readonly #slots: Int32Array;
  readonly #absolutePerCpu: boolean;

  /**
   * `known` are symbols whose addresses are known from elsewhere (VMCOREINFO): they decide between the two
   * meanings of the offsets (CONFIG_KALLSYMS_ABSOLUTE_PERCPU), and prove that the tables are whole. Throws a
   * VmcoreError if they are not.
   */
  constructor(tables: KallsymsTables, known: ReadonlyMap<string, bigint>) {
    this.count = tables.count;
    this.#tables = tables;
    this.#tokens = decodeTokens(tables);
    this.#offsets = new Int32Array(Uint8Array.from(tables.offsets).buffer);
    this.#starts = new Uint32Array(tables.count);
    this.#slots = new Int32Array(2 ** Math.ceil(Math.log2(tables.count * 2)));
    this.#index();
    this.#absolutePerCpu = this.#agrees(known, true);
    if (!this.#absolutePerCpu && !this.#agrees(known, false)) {
      throw new VmcoreError(
        `kallsyms is damaged: ${[...known.keys()].join(', ')} are not where VMCOREINFO says`,
      );
    }
  }

  lookup(name: string): bigint | undefined {
    const index = this.#find(name);
    return index === undefined ? undefined : this.#address(index, this.#absolutePerCpu);
  }

  symbolAt(address: bigint): { name: string; offset: number } | undefined {
    return searchSymbol(
      this.count,
      (index) => this.#address(index, this.#absolutePerCpu),
      (index) => this.#name(index),
      address,
    );
  }

  #agrees(known: ReadonlyMap<string, bigint>, absolutePerCpu: boolean): boolean {
    return [...known].every(([name, address]) => {
      const index = this.#find(name);
      return index !== undefined && this.#address(index, absolutePerCpu) === address;
    });
  }

  #address(index: number, absolutePerCpu: boolean): bigint {
    const offset = this.#offsets[index] ?? 0;
    if (!absolutePerCpu) return this.#tables.relativeBase + BigInt(offset >>> 0);
    return offset >= 0 ? BigInt(offset) : this.#tables.relativeBase - 1n - BigInt(offset);
  }

  #index(): void {
    const { names } = this.#tables;
    const { hash, hashTail, power } = this.#tokens;
    const slots = this.#slots;
    const mask = slots.length - 1;
    let at = 0;
    // Real tables need about one probe each; only a damaged or malicious one can exceed this.
    let probes = this.count * 64;
    for (let symbol = 0; symbol < this.count; symbol++) {
      this.#starts[symbol] = at;
      let length = names[at++]!;
      if ((length & 0x80) !== 0) length = (length & 0x7f) | (names[at++]! << 7);
      const end = at + length;
      if (end > names.length || length === 0) {
        throw new VmcoreError(
          `kallsyms is damaged: symbol ${symbol} of ${this.count} lies outside the names`,
        );
      }
      let value = hashTail[names[at++]!]!;
      while (at < end) {
        const token = names[at++]!;
        value = (Math.imul(value, power[token]!) + hash[token]!) | 0;
      }
      let slot = slotOf(value) & mask;
      for (; slots[slot] !== 0; slot = (slot + 1) & mask) probes--;
      if (probes < 0) throw new VmcoreError('kallsyms is damaged: most names are the same');
      slots[slot] = symbol + 1;
    }
  }

  #find(name: string): number | undefined {
    const mask = this.#slots.length - 1;
    let slot = slotOf(hashName(name)) & mask;
    for (let entry = this.#slots[slot]!; entry !== 0; entry = this.#slots[slot]!) {
      if (this.#name(entry - 1) === name) return entry - 1;
      slot = (slot + 1) & mask;
    }
    return undefined;
  }

  /** The symbol's name, without the type character in front of it. */
  #name(symbol: number): string {
    const { names } = this.#tables;
    let at = this.#starts[symbol]!;
    let length = names[at++]!;
    if ((length & 0x80) !== 0) length = (length & 0x7f) | (names[at++]! << 7);
    let name = '';
    for (const end = at + length; at < end; at++) name += this.#tokens.text[names[at]!];
    return name.slice(1);
  }
}
