import type { Fields, StructDecl, View } from './field.ts';
import type { Layouts } from './layout.ts';
import type { WindowSource } from './struct-view.ts';

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

/** A declaration compiled for one layout of its structure; it is in no memory yet. */
export interface Compiled<F extends Fields> extends Omit<Bound<F>, 'at' | 'containerOf'> {
  /** A view of the structure at `address` of a memory. */
  at(address: bigint, source: WindowSource): View<F>;
}

/** The kernel that declarations are compiled for. */
export interface BindContext {
  readonly layouts: Layouts;
  readonly release: string;
  readonly compile: (decl: StructDecl<Fields>) => Compiled<Fields>;
}
