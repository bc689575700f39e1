import { bytesToText } from '../system/byte-text.ts';
import { PAGE_SIZE } from '../system/page.ts';
import type { BindContext } from './bound.ts';
import { AddressError, BindError } from './errors.ts';
import type { FieldSpec } from './field.ts';
import { Flags } from './flags.ts';
import type { MemberLayout } from './layout.ts';
import { memberWindow, type Read, type StructView } from './struct-view.ts';

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
export class MemberBinder {
  readonly #context: BindContext;
  readonly #structure: string;
  readonly #size: number;

  constructor(context: BindContext, structure: string, size: number) {
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
        const inner = this.#context.compile(spec.decl);
        return (view) => inner.at(view.address + BigInt(offsetBytes), view.source);
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
