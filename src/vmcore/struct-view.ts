import { AddressError } from './errors.ts';

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

/** Reads one member of a structure. */
export type Read = (view: StructView) => unknown;

/** Base of all views: an address, and the bytes there once a member has been read. */
export class StructView {
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

/**
 * Bytes of one member: out of the window of the whole structure, or, where that is not in one piece, alone.
 * So is a member that ends behind its structure: elements of an array without a length, and any in damaged
 * type data.
 * @throws AddressError if it is not in the dump
 */
export function memberWindow(
  view: StructView,
  size: number,
  offset: number,
  length: number,
  name: string,
): Window {
  if (view.cached === undefined) view.cached = view.source.contiguous(view.address, size) ?? null;
  if (view.cached !== null && offset + length <= size) return view.cached;
  try {
    const alone = view.source.window(view.address + BigInt(offset), length);
    return { data: alone.data, offset: alone.offset - offset };
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new AddressError(error.address, error.problem, name);
  }
}
