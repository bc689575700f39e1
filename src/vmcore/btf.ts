import { VmcoreError } from './errors.ts';

/** Kinds of BTF types (include/uapi/linux/btf.h). */
export const BTF_KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

const MAGIC = 0xeb9f;
const HEADER = 24;
const TYPE = 12;
/** Bytes that follow a type of each kind: fixed, and for each of its `vlen` members. */
const TRAILER_FIXED = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0];
const TRAILER_MEMBER = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12];
/** No kernel has so many types, nor chains of typedefs and qualifiers so long. */
const MAX_TYPES = 1 << 22;
const MAX_CHAIN = 64;

/** A member of a struct or union; `bits` are from the start of the structure. */
export interface BtfMember {
  readonly name: string;
  readonly typeId: number;
  readonly bits: number;
  /** 0 unless a bit field. */
  readonly bitFieldWidth: number;
}

function damaged(problem: string): VmcoreError {
  return new VmcoreError(`BTF is damaged: ${problem}`);
}

/** FNV-1a over the bytes of a name. */
function hashBytes(bytes: Uint8Array, start: number): { hash: number; end: number } {
  let hash = 0x811c9dc5;
  let at = start;
  for (let byte = bytes[at]!; byte !== 0 && at < bytes.length; byte = bytes[++at]!) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return { hash: hash >>> 0, end: at };
}

/**
 * The kernel's type information (Documentation/bpf/btf.rst). Opening it makes one pass over the types that
 * notes where each is and files the named structures, unions, typedefs under the hash of their name; nothing
 * else is decoded before it is asked for.
 */
export class Btf {
  readonly raw: Uint8Array;
  readonly typeCount: number;
  readonly #words: DataView;
  readonly #strings: Buffer;
  /** Byte offset of each type in `#words`; type 0 is void. */
  readonly #starts: Uint32Array;
  readonly #slots: Int32Array;

  /** Throws a VmcoreError if the bytes are no BTF or are damaged. */
  constructor(raw: Uint8Array) {
    this.raw = raw;
    const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
    if (raw.length < HEADER || view.getUint16(0, true) !== MAGIC) throw damaged('the magic number is wrong');
    const header = view.getUint32(4, true);
    const [typeAt, typeBytes, stringAt, stringBytes] = [8, 12, 16, 20].map((at) =>
      view.getUint32(at, true),
    ) as [number, number, number, number];
    if (header + typeAt + typeBytes > raw.length || header + stringAt + stringBytes > raw.length) {
      throw damaged('a section lies outside it');
    }
    this.#words = new DataView(raw.buffer, raw.byteOffset + header + typeAt, typeBytes);
    this.#strings = Buffer.from(raw.buffer, raw.byteOffset + header + stringAt, stringBytes);
    const { starts, named } = this.#scan();
    this.#starts = starts;
    this.typeCount = starts.length;
    this.#slots = new Int32Array(2 ** Math.ceil(Math.log2(named.length * 2 + 2)));
    this.#file(named);
  }

  /** Types of this name among `kinds`, in the order of the file. */
  find(name: string, kinds: readonly number[]): number[] {
    const bytes = Buffer.from(`${name}\0`, 'latin1');
    const mask = this.#slots.length - 1;
    const found: number[] = [];
    let slot = hashBytes(bytes, 0).hash & mask;
    for (let id = this.#slots[slot]!; id !== 0; id = this.#slots[slot]!) {
      if (kinds.includes(this.kind(id)) && this.name(id) === name) found.push(id);
      slot = (slot + 1) & mask;
    }
    return found;
  }

  kind(id: number): number {
    return id === 0 ? 0 : (this.#words.getUint32(this.#start(id) + 4, true) >>> 24) & 0x1f;
  }

  /** Number of members, enumerators or parameters. */
  vlen(id: number): number {
    return this.#words.getUint32(this.#start(id) + 4, true) & 0xffff;
  }

  name(id: number): string {
    return id === 0 ? 'void' : this.#string(this.#words.getUint32(this.#start(id), true));
  }

  /** The type that a pointer, typedef, qualifier … refers to. */
  target(id: number): number {
    return this.#words.getUint32(this.#start(id) + 8, true);
  }

  /** The `size` word of a struct, union, int, enum or float, in bytes. */
  ownSize(id: number): number {
    return this.#words.getUint32(this.#start(id) + 8, true);
  }

  /** The encoding word of an INT: bit 24 signed, bit 25 char, bit 26 bool; low byte the width in bits. */
  intEncoding(id: number): number {
    return this.#words.getUint32(this.#start(id) + TYPE, true);
  }

  arrayOf(id: number): { readonly elementId: number; readonly count: number } {
    const at = this.#start(id) + TYPE;
    return { elementId: this.#words.getUint32(at, true), count: this.#words.getUint32(at + 8, true) };
  }

  isEnumSigned(id: number): boolean {
    return this.#words.getUint32(this.#start(id) + 4, true) >>> 31 === 1;
  }

  member(id: number, index: number): BtfMember {
    const start = this.#start(id);
    const at = start + TYPE + index * 12;
    const offset = this.#words.getUint32(at + 8, true);
    const hasBitFields = this.#words.getUint32(start + 4, true) >>> 31 === 1;
    return {
      name: this.#string(this.#words.getUint32(at, true)),
      typeId: this.#words.getUint32(at + 4, true),
      bits: hasBitFields ? offset & 0xff_ffff : offset,
      bitFieldWidth: hasBitFields ? offset >>> 24 : 0,
    };
  }

  /** Types of a function prototype's parameters; 0 at the end of a variadic one. */
  parameters(id: number): number[] {
    const at = this.#start(id) + TYPE + 4;
    return Array.from({ length: this.vlen(id) }, (_, i) => this.#words.getUint32(at + i * 8, true));
  }

  /** Names and values of an enum, as far as a number holds them. */
  enumerators(id: number): { readonly name: string; readonly value: number }[] {
    const words = this.#words;
    const isWide = this.kind(id) === BTF_KIND.ENUM64;
    return Array.from({ length: this.vlen(id) }, (_, i) => {
      const at = this.#start(id) + TYPE + i * (isWide ? 12 : 8);
      const low = isWide ? words.getUint32(at + 4, true) : words.getInt32(at + 4, true);
      const high = isWide ? words.getInt32(at + 8, true) : 0;
      return { name: this.#string(words.getUint32(at, true)), value: high * 0x1_0000_0000 + low };
    });
  }

  /** Follows typedefs, const, volatile, restrict and type tags to the type itself. */
  strip(id: number): number {
    let at = id;
    for (let steps = 0; steps < MAX_CHAIN; steps++) {
      const kind = this.kind(at);
      const isTransparent =
        (kind >= BTF_KIND.TYPEDEF && kind <= BTF_KIND.RESTRICT) || kind === BTF_KIND.TYPE_TAG;
      if (!isTransparent) return at;
      at = this.target(at);
    }
    throw damaged(`the chain of typedefs from type ${id} does not end`);
  }

  /** Size of a type in bytes; 0 for void, functions and forward declarations. */
  sizeOf(id: number): number {
    let count = 1;
    let at = this.strip(id);
    for (let depth = 0; this.kind(at) === BTF_KIND.ARRAY; depth++) {
      if (depth > MAX_CHAIN) throw damaged(`array type ${id} does not end`);
      const array = this.arrayOf(at);
      count *= array.count;
      at = this.strip(array.elementId);
    }
    switch (this.kind(at)) {
      case BTF_KIND.PTR:
        return count * 8;
      case BTF_KIND.INT:
      case BTF_KIND.STRUCT:
      case BTF_KIND.UNION:
      case BTF_KIND.ENUM:
      case BTF_KIND.ENUM64:
      case BTF_KIND.FLOAT:
        return count * this.ownSize(at);
      default:
        return 0;
    }
  }

  /**
   * Value of an enumerator of any enum, the first of that name; 64-bit ones only as far as a number holds
   * them.
   */
  enumerator(name: string): number | undefined {
    const words = this.#words;
    const nameAt = this.#stringOffsets(name);
    if (nameAt.size === 0) return undefined;
    for (let id = 1; id < this.typeCount; id++) {
      const kind = this.kind(id);
      if (kind !== BTF_KIND.ENUM && kind !== BTF_KIND.ENUM64) continue;
      const first = this.#starts[id]! + TYPE;
      const bytes = kind === BTF_KIND.ENUM ? 8 : 12;
      const end = first + this.vlen(id) * bytes;
      for (let at = first; at < end; at += bytes) {
        if (nameAt.has(words.getUint32(at, true))) return this.enumerators(id)[(at - first) / bytes]?.value;
      }
    }
    return undefined;
  }

  /** Where a string is among the strings: usually once, since compilers and pahole store equal ones once. */
  #stringOffsets(text: string): Set<number> {
    const strings = this.#strings;
    const wanted = Buffer.from(`\0${text}\0`, 'latin1');
    const offsets = new Set<number>();
    for (let at = strings.indexOf(wanted); at >= 0; at = strings.indexOf(wanted, at + 1)) offsets.add(at + 1);
    return offsets;
  }

  #start(id: number): number {
    const start = this.#starts[id];
    if (start === undefined || id === 0) throw damaged(`there is no type ${id}`);
    return start;
  }

  #string(offset: number): string {
    if (offset >= this.#strings.length) throw damaged(`a name is at ${offset}, outside the strings`);
    return this.#strings.toString('latin1', offset, this.#strings.indexOf(0, offset));
  }

  #scan(): { starts: Uint32Array; named: number[] } {
    const words = this.#words;
    const starts: number[] = [0];
    const named: number[] = [];
    let at = 0;
    while (at + TYPE <= words.byteLength) {
      const info = words.getUint32(at + 4, true);
      const kind = (info >>> 24) & 0x1f;
      if (kind < BTF_KIND.INT || kind > BTF_KIND.ENUM64)
        throw damaged(`type ${starts.length} is of kind ${kind}`);
      if (kind === BTF_KIND.STRUCT || kind === BTF_KIND.UNION || kind === BTF_KIND.TYPEDEF)
        named.push(starts.length);
      starts.push(at);
      at += TYPE + TRAILER_FIXED[kind]! + TRAILER_MEMBER[kind]! * (info & 0xffff);
      if (starts.length > MAX_TYPES) throw damaged('it has too many types');
    }
    if (at !== words.byteLength) throw damaged('the last type is cut off');
    if (this.#strings.at(-1) !== 0) throw damaged('the strings do not end');
    return { starts: Uint32Array.from(starts), named };
  }

  #file(named: readonly number[]): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    // Real tables need about one probe each; only a damaged or malicious one can exceed this.
    let budget = (named.length + 1) * 64 + this.#strings.length;
    for (const id of named) {
      const nameAt = this.#words.getUint32(this.#starts[id]!, true);
      if (nameAt === 0) continue;
      if (nameAt >= this.#strings.length) throw damaged(`the name of type ${id} lies outside the strings`);
      const { hash, end } = hashBytes(this.#strings, nameAt);
      budget -= (end - nameAt) >> 3;
      let slot = hash & mask;
      for (; slots[slot] !== 0; slot = (slot + 1) & mask) budget--;
      if (budget < 0) throw damaged('most types have the same name');
      slots[slot] = id;
    }
  }
}
