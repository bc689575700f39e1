import { bytesToText } from '../system/byte-text.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { AddressError, BindError } from './errors.ts';
import type { Field, FieldSpec, Fields, StructDecl, View } from './field.ts';
import { Flags } from './flags.ts';
import type { Layouts, MemberLayout } from './layout.ts';

export * from './field.ts';
export type { Flags } from './flags.ts';

/**
 * Bytes somewhere in the dump: `data` from byte `offset` on. Nothing was copied if memory is contiguous
 * there.
 */
export interface Window {
  readonly data: DataView;
  readonly offset: number;
}

/** What views need from kernel memory. */
export interface WindowSource {
  /** `length` bytes at a kernel address; throws an AddressError if any of them is missing. */
  window(address: bigint, length: number): Window;
  /**
   * The same without copying, or undefined where the bytes are not contiguous in the dump or not all there.
   */
  contiguous(address: bigint, length: number): Window | undefined;
}

/**
 * A declaration bound to one kernel's layout. Each member is bound when it is read first: what a kernel lacks
 * fails who reads it, with a BindError, and nobody else.
 */
export interface Bound<F extends Fields> {
  readonly name: string;
  /** Size of the whole structure in bytes. */
  readonly size: number;
  /** A view of the structure at `address`; nothing is read before a member is. */
  at(address: bigint): View<F>;
  /** Byte offset of a declared member (by its key) or of any path; throws a BindError if there is none. */
  offsetOf(member: string): number;
  /** The structure whose declared member (by key) or path is at `memberAddress`. */
  containerOf(memberAddress: bigint, member: string): View<F>;
  /** Whether this kernel has the declared (optional) member. */
  has(member: keyof F & string): boolean;
  /** Binds all members now; throws a BindError if one does not fit, or is missing and not optional. */
  bindAll(): void;
}

type Read = (view: StructView) => unknown;

/** Base of all views: an address, and the bytes there once a member has been read. */
class StructView {
  readonly address: bigint;
  readonly source: WindowSource;
  /** Null where the structure is not in one piece. */
  cached: Window | null | undefined;

  constructor(address: bigint, source: WindowSource) {
    this.address = address;
    this.source = source;
    this.cached = undefined;
  }
}

interface Context {
  readonly layouts: Layouts;
  readonly release: string;
  readonly source: WindowSource;
  readonly bind: (decl: StructDecl<Fields>) => Bound<Fields>;
}

/**
 * Bytes of one member: out of the window of the whole structure, or, where that is not in one piece, alone.
 */
function memberWindow(view: StructView, size: number, offset: number, length: number, name: string): Window {
  if (view.cached === undefined) view.cached = view.source.contiguous(view.address, size) ?? null;
  if (view.cached !== null) return view.cached;
  try {
    const alone = view.source.window(view.address + BigInt(offset), length);
    return { data: alone.data, offset: alone.offset - offset };
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new AddressError(error.address, error.problem, name);
  }
}

/** User space ends here with five levels of page tables; multiples of 4096 up to it are exact as numbers. */
const USER_END = 2 ** 56;

function safeInteger(value: bigint, view: StructView, offset: number, name: string, isPage = false): number {
  const number = Number(value);
  const isExactPage = isPage && number <= USER_END && number % PAGE_SIZE === 0 && BigInt(number) === value;
  if (!Number.isSafeInteger(number) && !isExactPage) {
    throw new AddressError(view.address + BigInt(offset), `holds ${value}, far too large to be true`, name);
  }
  return number;
}

type Load = (data: DataView, at: number) => number | bigint;

function loader(bytes: number, signed: boolean): Load {
  if (bytes === 1) return signed ? (d, at) => d.getInt8(at) : (d, at) => d.getUint8(at);
  if (bytes === 2) return signed ? (d, at) => d.getInt16(at, true) : (d, at) => d.getUint16(at, true);
  if (bytes === 4) return signed ? (d, at) => d.getInt32(at, true) : (d, at) => d.getUint32(at, true);
  return signed ? (d, at) => d.getBigInt64(at, true) : (d, at) => d.getBigUint64(at, true);
}

/** 64-bit integers that are wanted as numbers: two 32-bit loads, no bigint. */
function readLongNumber(size: number, offset: number, signed: boolean, name: string, isPage = false): Read {
  return (view) => {
    const { data, offset: base } = memberWindow(view, size, offset, 8, name);
    const high = signed ? data.getInt32(base + offset + 4, true) : data.getUint32(base + offset + 4, true);
    if (high >= 0x200000 || high < -0x200000) {
      return safeInteger(data.getBigUint64(base + offset, true), view, offset, name, isPage);
    }
    return high * 0x1_0000_0000 + data.getUint32(base + offset, true);
  };
}

function readBits(size: number, layout: MemberLayout, signed: boolean, name: string): Read {
  const bits = layout.bits ?? { offset: 0, width: layout.sizeBytes * 8 };
  const first = layout.offsetBytes + (bits.offset >> 3);
  const shift = bits.offset & 7;
  const length = (shift + bits.width + 7) >> 3;
  return (view) => {
    const { data, offset } = memberWindow(view, size, first, length, name);
    let value = 0;
    for (let i = length - 1; i >= 0; i--) value = value * 256 + data.getUint8(offset + first + i);
    value = Math.floor(value / 2 ** shift) % 2 ** bits.width;
    return signed && value >= 2 ** (bits.width - 1) ? value - 2 ** bits.width : value;
  };
}

/**
 * Compiles one member into a function that reads it, after checking that size and kind are the declared ones.
 */
class MemberBinder {
  readonly #context: Context;
  readonly #structure: string;
  readonly #size: number;

  constructor(context: Context, structure: string, size: number) {
    this.#context = context;
    this.#structure = structure;
    this.#size = size;
  }

  bind(spec: FieldSpec, layout: MemberLayout, path: string): Read {
    const { offsetBytes } = layout;
    switch (spec.kind) {
      case 'address':
        return (view) => view.address + BigInt(offsetBytes);
      case 'integer':
        return this.#integer(spec, layout, path);
      case 'flags':
        return this.#flags(layout, path);
      case 'pointer':
        this.#expectSize(layout, 8, path, 'a pointer');
        return this.#plain(layout, path, loader(8, false));
      case 'bool':
        return this.#bool(layout, path);
      case 'cstring':
        return this.#cstring(layout, path);
      case 'bytes':
        return this.#bytes(layout, path);
      case 'struct': {
        if (layout.kind !== 'struct') this.#fail(path, `is ${layout.kind}, not a structure`);
        const inner = this.#context.bind(spec.decl);
        return (view) => inner.at(view.address + BigInt(offsetBytes));
      }
      case 'array':
        return this.#array(spec, layout, path);
    }
  }

  #fail(path: string, problem: string): never {
    throw new BindError(this.#structure, path, this.#context.release, problem);
  }

  #expectSize(layout: MemberLayout, bytes: number, path: string, wanted: string): void {
    if (layout.sizeBytes !== bytes)
      this.#fail(path, `has ${layout.sizeBytes} bytes, not ${bytes} as ${wanted}`);
  }

  #plain(layout: MemberLayout, path: string, load: Load): Read {
    const { offsetBytes, sizeBytes } = layout;
    const size = this.#size;
    const name = `${this.#structure}.${path}`;
    return (view) => {
      const { data, offset } = memberWindow(view, size, offsetBytes, sizeBytes, name);
      return load(data, offset + offsetBytes);
    };
  }

  #integer(spec: FieldSpec & { kind: 'integer' }, outer: MemberLayout, path: string): Read {
    const layout = innermost(outer);
    const name = `${this.#structure}.${path}`;
    if (!['integer', 'enum', 'bool', 'pointer'].includes(layout.kind)) {
      this.#fail(path, `is ${layout.kind}, not an integer`);
    }
    const bytes = spec.bytes === 0 ? Math.min(layout.sizeBytes, 4) : spec.bytes;
    if (layout.bits !== undefined) {
      if (layout.bits.width > bytes * 8) this.#fail(path, `has ${layout.bits.width} bits`);
      const read = readBits(this.#size, layout, spec.signed, name);
      return spec.as === 'number' ? read : (view) => BigInt(Number(read(view)));
    }
    this.#expectSize(layout, bytes, path, 'declared');
    if (bytes === 8 && spec.as === 'number') {
      return readLongNumber(this.#size, layout.offsetBytes, spec.signed, name, spec.isPage === true);
    }
    return this.#plain(layout, path, loader(bytes, spec.signed));
  }

  #flags(outer: MemberLayout, path: string): Read {
    const layout = innermost(outer);
    const { offsetBytes: at, sizeBytes } = layout;
    if (layout.kind !== 'integer' || layout.bits !== undefined || (sizeBytes !== 4 && sizeBytes !== 8)) {
      this.#fail(path, `is ${layout.kind} of ${sizeBytes} bytes, not a word of flags`);
    }
    const size = this.#size;
    const name = `${this.#structure}.${path}`;
    return (view) => {
      const { data, offset } = memberWindow(view, size, at, sizeBytes, name);
      const low = data.getUint32(offset + at, true);
      return new Flags(low, sizeBytes === 8 ? data.getUint32(offset + at + 4, true) : 0);
    };
  }

  #bool(layout: MemberLayout, path: string): Read {
    if (layout.bits !== undefined) {
      const read = readBits(this.#size, layout, false, `${this.#structure}.${path}`);
      return (view) => read(view) !== 0;
    }
    this.#expectSize(layout, 1, path, 'a bool');
    const read = this.#plain(layout, path, loader(1, false));
    return (view) => read(view) !== 0;
  }

  #cstring(layout: MemberLayout, path: string): Read {
    if (layout.kind !== 'array' || layout.element?.layout.sizeBytes !== 1) {
      this.#fail(path, `is ${layout.kind}, not an array of char`);
    }
    const read = this.#bytes(layout, path);
    return (view) => {
      const all = read(view);
      const end = all.indexOf(0);
      return bytesToText(end < 0 ? all : all.subarray(0, end));
    };
  }

  #bytes(layout: MemberLayout, path: string): (view: StructView) => Buffer {
    const { offsetBytes, sizeBytes } = layout;
    const size = this.#size;
    const name = `${this.#structure}.${path}`;
    return (view) => {
      const { data, offset } = memberWindow(view, size, offsetBytes, sizeBytes, name);
      const from = data.byteOffset + offset + offsetBytes;
      return Buffer.from(new Uint8Array(data.buffer, from, sizeBytes));
    };
  }

  #array(spec: FieldSpec & { kind: 'array' }, layout: MemberLayout, path: string): Read {
    if (layout.kind !== 'array' || layout.element === undefined)
      this.#fail(path, `is ${layout.kind}, not an array`);
    const { layout: element, count } = layout.element;
    const length = spec.length ?? count;
    if (count !== 0 && length > count) this.#fail(path, `has ${count} elements, not ${length}`);
    const reads: Read[] = [];
    for (let i = 0; i < length; i++) {
      reads.push(
        this.bind(
          spec.element,
          shifted(element, i * element.sizeBytes + layout.offsetBytes),
          `${path}[${i}]`,
        ),
      );
    }
    return (view) => reads.map((read) => read(view));
  }
}

/** What a structure of one member (`atomic_t`) holds; any other layout as it is. */
function innermost(outer: MemberLayout): MemberLayout {
  let layout = outer;
  while (layout.kind === 'struct' && layout.only !== undefined) layout = layout.only;
  return layout;
}

/**
 * The element layout of an array is relative to the element; this moves it (and what is in it) to its place.
 */
function shifted(layout: MemberLayout, by: number): MemberLayout {
  return {
    ...layout,
    offsetBytes: layout.offsetBytes + by,
    only: layout.only === undefined ? undefined : shifted(layout.only, by),
  };
}

/** A getter that binds its member when it is first called, and makes way for the read alone then. */
function defineMember(prototype: object, key: string, bind: () => Read): void {
  const define = (read: Read): void => {
    Object.defineProperty(prototype, key, {
      configurable: true,
      enumerable: true,
      get(this: StructView) {
        return read(this);
      },
    });
  };
  define((view) => {
    const read = bind();
    define(read);
    return read(view);
  });
}

/** A member as one kernel has it; without `layout` if it has none of the alternatives. */
interface Located {
  readonly field: Field<unknown>;
  readonly path: string;
  readonly layout: MemberLayout | undefined;
}

/** The first alternative of a field that the kernel has, else its first. */
function locate(structure: string, key: string, field: Field<unknown>, layouts: Layouts): Located {
  for (let at: Field<unknown> | undefined = field; at !== undefined; at = at.otherwise) {
    for (const path of pathsOf(at, key)) {
      const layout = layouts.member(structure, path);
      if (layout !== undefined) return { field: at, path, layout };
    }
  }
  return { field, path: pathsOf(field, key)[0] ?? key, layout: undefined };
}

function pathsOf(field: Field<unknown>, key: string): readonly string[] {
  return field.paths.length === 0 ? [key] : field.paths;
}

/**
 * Binds a declaration to a kernel's layouts. Throws a BindError if there is no such structure. Reading a
 * member throws one that names structure, member and release if it is not optional and missing, or has
 * another size or another kind.
 */
export function bindStruct<F extends Fields>(decl: StructDecl<F>, context: Context): Bound<F> {
  const { layouts, release, source } = context;
  const size = layouts.sizeOf(decl.name);
  if (size === undefined) throw new BindError(decl.name, undefined, release, 'does not exist');
  class BoundView extends StructView {}
  const binder = new MemberBinder(context, decl.name, size);
  const fields = new Map(Object.entries<Field<unknown>>(decl.fields));
  const bindMember = (key: string, declared: Field<unknown>): Read => {
    const { field, path, layout } = locate(decl.name, key, declared, layouts);
    if (layout !== undefined) return binder.bind(field.spec, layout, path);
    if (declared.isOptional) return () => undefined;
    throw new BindError(decl.name, path, release, 'does not exist');
  };
  for (const [key, field] of fields) defineMember(BoundView.prototype, key, () => bindMember(key, field));
  const layoutOf = (member: string): MemberLayout | undefined => {
    const field = fields.get(member);
    const declared = field && locate(decl.name, member, field, layouts).layout;
    return declared ?? layouts.member(decl.name, member);
  };
  const offsets = new Map<string, number>();
  const offsetOf = (member: string): number => {
    const offset = offsets.get(member) ?? layoutOf(member)?.offsetBytes;
    if (offset === undefined) throw new BindError(decl.name, member, release, 'does not exist');
    offsets.set(member, offset);
    return offset;
  };
  // The getters just defined are those of View<F>: the one place where the type is asserted instead of
  // inferred.
  const at = (address: bigint): View<F> => new BoundView(address, source) as unknown as View<F>;
  return {
    name: decl.name,
    size,
    at,
    offsetOf,
    containerOf: (memberAddress, member) => at(memberAddress - BigInt(offsetOf(member))),
    has: (member) => {
      const field = fields.get(member);
      return field !== undefined && locate(decl.name, member, field, layouts).layout !== undefined;
    },
    bindAll: () => {
      for (const [key, field] of fields) bindMember(key, field);
    },
  };
}
