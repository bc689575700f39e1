import { showText } from '../system/byte-text.ts';
import { BTF_KIND, type Btf } from '../vmcore/btf.ts';
import { hex, isDamage, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** The elements of an array that are shown, and how many there are besides. */
export class CutArray {
  readonly elements: readonly Value[];
  readonly more: number;

  constructor(elements: readonly Value[], more: number) {
    this.elements = elements;
    this.more = more;
  }
}

/** A value that the dump does not have. */
export class Unreadable {
  readonly unreadable: string;

  constructor(problem: string) {
    this.unreadable = problem;
  }
}

/** A value as JSON holds it: pointers and 64-bit numbers beyond 2^53 are hexadecimal strings. */
export type Value =
  | number
  | string
  | boolean
  | readonly Value[]
  | CutArray
  | Unreadable
  | { readonly [member: string]: Value };

/** Elements of an array, bytes of a string, and members in all, that are shown. */
const MAX_ELEMENTS = 64;
const MAX_CHARACTERS = 65_536;
const MAX_MEMBERS = 20_000;
const MAX_DEPTH = 24;
const TOO_LARGE = `of the structure ${MAX_MEMBERS} members are shown`;
const SIGNED = 1 << 24;
const BOOL = 1 << 26;

/** Reads typed values out of a dump by their BTF type. */
export class ValueReader {
  readonly #kernel: Kernel;
  readonly #btf: Btf;
  #budget = MAX_MEMBERS;
  readonly #problems: string[] = [];

  constructor(kernel: Kernel, btf: Btf) {
    this.#kernel = kernel;
    this.#btf = btf;
  }

  /** What could not be read of all values, as sentences. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** The value of a type at an address; where memory is missing, an {@link Unreadable} is in its place. */
  read(typeId: number, address: bigint, depth = 0): Value {
    if (depth <= MAX_DEPTH && this.#budget-- > 0) {
      return this.#attempt(hex(address), () => this.#read(typeId, address, depth));
    }
    if (!this.#problems.includes(TOO_LARGE)) this.#problems.push(TOO_LARGE);
    return new Unreadable('not shown');
  }

  #attempt(what: string, read: () => Value): Value {
    try {
      return read();
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#problems.push(`the value at ${what} cannot be read: ${error.message}`);
      return new Unreadable(error.message);
    }
  }

  #read(typeId: number, address: bigint, depth: number): Value {
    const btf = this.#btf;
    const id = btf.strip(typeId);
    switch (btf.kind(id)) {
      case BTF_KIND.INT:
        return this.#integer(id, address);
      case BTF_KIND.PTR:
        return hex(this.#kernel.memory.pointer(address));
      case BTF_KIND.ENUM:
      case BTF_KIND.ENUM64: {
        const value = Number(this.#number(address, btf.ownSize(id), btf.isEnumSigned(id)));
        return btf.enumerators(id).find((known) => known.value === value)?.name ?? value;
      }
      case BTF_KIND.STRUCT:
      case BTF_KIND.UNION:
        return this.#structure(id, address, depth);
      case BTF_KIND.ARRAY:
        return this.#array(id, address, depth);
      default:
        return hex(address);
    }
  }

  #number(address: bigint, bytes: number, signed: boolean): bigint {
    if (bytes < 1 || bytes > 16) throw new VmcoreError(`BTF is damaged: an integer of ${bytes} bytes`);
    const raw = this.#kernel.memory.read(address, bytes);
    const value = BigInt(`0x${Buffer.from(raw.toReversed()).toString('hex')}`);
    return signed ? BigInt.asIntN(bytes * 8, value) : value;
  }

  #integer(id: number, address: bigint): Value {
    const encoding = this.#btf.intEncoding(id);
    const value = this.#number(address, this.#btf.ownSize(id), (encoding & SIGNED) !== 0);
    return (encoding & BOOL) !== 0 ? value !== 0n : asNumber(value);
  }

  #structure(id: number, address: bigint, depth: number): Value {
    const btf = this.#btf;
    const result: { [member: string]: Value } = {};
    for (let i = 0; i < btf.vlen(id); i++) {
      const { name, typeId, bits, bitFieldWidth } = btf.member(id, i);
      const at = address + BigInt(bits >>> 3);
      const value =
        bitFieldWidth === 0
          ? this.read(typeId, at, depth + 1)
          : this.#attempt(hex(at), () => this.#bitField(at, bits & 7, bitFieldWidth));
      if (name === '' && isStructure(value)) Object.assign(result, value);
      else result[name] = value;
    }
    return result;
  }

  #bitField(address: bigint, shift: number, width: number): Value {
    const raw = this.#number(address, (shift + width + 7) >> 3, false);
    return asNumber(BigInt.asUintN(width, raw >> BigInt(shift)));
  }

  #array(id: number, address: bigint, depth: number): Value {
    const { elementId, count } = this.#btf.arrayOf(id);
    const element = this.#btf.strip(elementId);
    if (
      this.#btf.kind(element) === BTF_KIND.INT &&
      this.#btf.ownSize(element) === 1 &&
      this.#isChar(elementId)
    ) {
      return showText(this.#kernel.memory.cstring(address, Math.min(count, MAX_CHARACTERS)));
    }
    const size = BigInt(this.#btf.sizeOf(element));
    const shown = Math.min(count, MAX_ELEMENTS);
    const elements = Array.from({ length: shown }, (_, i) =>
      this.read(element, address + BigInt(i) * size, depth + 1),
    );
    return shown < count ? new CutArray(elements, count - shown) : elements;
  }

  #isChar(typeId: number): boolean {
    return this.#btf.name(this.#btf.strip(typeId)) === 'char';
  }
}

function asNumber(value: bigint): Value {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : hex(BigInt.asUintN(64, value));
}

/** Values as an indented C initialiser: `.pid = 1,`. */
export function formatValue(value: Value, indent = ''): string {
  if (typeof value === 'string') return value.startsWith('0x') ? value : JSON.stringify(value);
  if (typeof value !== 'object') return String(value);
  if (value instanceof Unreadable) return `/* unreadable: ${value.unreadable} */`;
  if (value instanceof CutArray) return formatList(value.elements, value.more, indent);
  if (isList(value)) return formatList(value, 0, indent);
  const inner = `${indent}\t`;
  const lines = Object.entries(value).map(
    ([name, item]) => `${inner}.${name} = ${formatValue(item, inner)},\n`,
  );
  return `{\n${lines.join('')}${indent}}`;
}

function formatList(elements: readonly Value[], more: number, indent: string): string {
  const inner = `${indent}\t`;
  const rest = more === 0 ? '' : `/* and ${more} more */`;
  if (elements.every((item) => typeof item !== 'object'))
    return `{ ${elements.map((item) => formatValue(item)).join(', ')}${rest === '' ? '' : `, ${rest}`} }`;
  const lines = elements.map((item, i) => `${inner}[${i}] = ${formatValue(item, inner)},\n`);
  return `{\n${lines.join('')}${rest === '' ? '' : `${inner}${rest}\n`}${indent}}`;
}

function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

function isStructure(value: Value): value is { readonly [member: string]: Value } {
  return (
    typeof value === 'object' &&
    !isList(value) &&
    !(value instanceof CutArray) &&
    !(value instanceof Unreadable)
  );
}
