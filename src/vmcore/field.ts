import type { Flags } from './flags.ts';

/** How a member is read: what a {@link Field} stands for at run time. */
export type FieldSpec =
  | {
      readonly kind: 'integer';
      /** 0: up to 4, whatever the kernel has. */
      readonly bytes: 0 | 1 | 2 | 4 | 8;
      readonly signed: boolean;
      readonly as: 'number' | 'bigint';
      /** Holds the address of a page. */
      readonly isPage?: true;
    }
  | { readonly kind: 'flags' }
  | { readonly kind: 'pointer' }
  | { readonly kind: 'bool' }
  | { readonly kind: 'cstring' }
  | { readonly kind: 'bytes' }
  | { readonly kind: 'address' }
  | { readonly kind: 'struct'; readonly decl: StructDecl<Fields> }
  | { readonly kind: 'array'; readonly element: FieldSpec; readonly length: number | undefined };

/**
 * One member in a structure declaration. `T` is the TypeScript type that reading it gives. The member's path
 * is the declaration's key, or what `at` says: names joined by dots, array elements as `[0]`; anonymous
 * structures and unions on the way are left out.
 */
export class Field<out T> {
  declare readonly type: T;
  readonly spec: FieldSpec;
  /** Empty: the declaration's key. */
  readonly paths: readonly string[];
  readonly isOptional: boolean;
  /** What the kernel has instead where it has none of the paths. */
  readonly otherwise: Field<unknown> | undefined;

  constructor(
    spec: FieldSpec,
    paths: readonly string[] = [],
    isOptional = false,
    otherwise: Field<unknown> | undefined = undefined,
  ) {
    this.spec = spec;
    this.paths = paths;
    this.isOptional = isOptional;
    this.otherwise = otherwise;
  }

  /**
   * The same field under another path than the declaration's key; of several, the first that the kernel has.
   */
  at(path: string, ...others: readonly string[]): Field<T> {
    return new Field<T>(this.spec, [path, ...others], this.isOptional, this.otherwise);
  }

  /** This field, or another one, of another size or path, in kernels that do not have it. */
  or(otherwise: Field<T>): Field<T> {
    return new Field<T>(this.spec, this.paths, this.isOptional, otherwise);
  }
}

export type Fields = Readonly<Record<string, Field<unknown>>>;

/**
 * A structure declared once: the kernel's name for it and the members that the code uses. A member costs
 * nothing where it is not read, and need not be in every kernel for the others to be read: see `Bound`.
 */
export interface StructDecl<F extends Fields> {
  readonly name: string;
  readonly fields: F;
}

/** What reading a structure at an address gives: its address and a lazy getter for each declared member. */
export type View<F extends Fields> = { readonly address: bigint } & {
  readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

/** The view type of a declaration: `type Task = ViewOf<typeof taskStruct>`. */
export type ViewOf<D> = D extends StructDecl<infer F> ? View<F> : never;

const integer = (bytes: 0 | 1 | 2 | 4 | 8, signed: boolean, as: 'number' | 'bigint'): FieldSpec => ({
  kind: 'integer',
  bytes,
  signed,
  as,
});

/**
 * Integers up to 32 bits are numbers. A declared integer also binds to a bit field of at most its size, to an
 * enum of its size, and to a structure of its size with one member (`atomic_t`, `kuid_t`, `refcount_t`).
 */
export const u8 = new Field<number>(integer(1, false, 'number'));
export const u16 = new Field<number>(integer(2, false, 'number'));
export const u32 = new Field<number>(integer(4, false, 'number'));
export const s16 = new Field<number>(integer(2, true, 'number'));
export const s32 = new Field<number>(integer(4, true, 'number'));
/** An unsigned number of at most 32 bits whose size differs between releases. */
export const uint = new Field<number>(integer(0, false, 'number'));
/** Registers, signal masks, cookies and anything else that may use all its bits: bigint. */
export const u64 = new Field<bigint>(integer(8, false, 'bigint'));
export const s64 = new Field<bigint>(integer(8, true, 'bigint'));
/**
 * An `unsigned long` that stays below 2^53 in a sound kernel (user addresses, counts, sizes, frame numbers),
 * read as a number, which is ten times cheaper than a bigint; a larger value throws an AddressError that
 * names the member. A set of flags is no such number: see {@link flags}.
 */
export const ulongNumber = new Field<number>(integer(8, false, 'number'));
/**
 * An `unsigned long` that holds the address of a page of user space, as a number: with five levels of page
 * tables it may be as high as 2^56, and a multiple of 4096 below that is exact.
 */
export const pageAddress = new Field<number>({
  kind: 'integer',
  bytes: 8,
  signed: false,
  as: 'number',
  isPage: true,
});
/** A `long` between -2^53 and 2^53, as a number; a larger value throws. */
export const longNumber = new Field<number>(integer(8, true, 'number'));
/** A set of flags, of 32 or 64 bits: nothing is too large to be true. */
export const flags = new Field<Flags>({ kind: 'flags' });
/** A pointer's value, as bigint; 0n is NULL. It also binds to an `unsigned long` that holds a pointer. */
export const pointer = new Field<bigint>({ kind: 'pointer' });
/** `bool` (one byte, or a bit field of one bit). */
export const bool = new Field<boolean>({ kind: 'bool' });
/**
 * A `char` array up to its first zero byte, as text of which `textToBytes` (byte-text.ts) makes the same
 * bytes again.
 */
export const cstring = new Field<string>({ kind: 'cstring' });
/** The member's bytes, copied out of the dump. */
export const bytes = new Field<Buffer>({ kind: 'bytes' });

/** The address of a member that is not read (a list head, a lock, a table); `path` as in {@link Field.at}. */
export function addressOf(path?: string): Field<bigint> {
  return new Field<bigint>({ kind: 'address' }, path === undefined ? [] : [path]);
}

/** A structure inside the structure, as a view. */
export function embed<F extends Fields>(decl: StructDecl<F>): Field<View<F>> {
  return new Field<View<F>>({ kind: 'struct', decl });
}

/**
 * An array member; its length is BTF's unless given (flexible arrays need one). Elements are read when it is.
 */
export function array<T>(element: Field<T>, length?: number): Field<readonly T[]> {
  return new Field<readonly T[]>({ kind: 'array', element: element.spec, length });
}

/** A member that some kernels lack: reading it there gives undefined. */
export function optional<T>(field: Field<T>): Field<T | undefined> {
  return new Field<T | undefined>(field.spec, field.paths, true, field.otherwise);
}

/** Declares a structure. Declare at module level: `kernel.bind` remembers its work per declaration object. */
export function struct<const F extends Fields>(name: string, fields: F): StructDecl<F> {
  return { name, fields };
}
