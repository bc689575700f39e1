/** What a member is made of, as far as reading it goes. */
export type MemberKind = 'integer' | 'bool' | 'pointer' | 'enum' | 'struct' | 'array' | 'float' | 'function';

/** Where a member is and what it is; offsets are from the start of the outermost structure. */
export interface MemberLayout {
  readonly offsetBytes: number;
  /** 0 for a flexible array. For a bit field: the bytes of its declared type. */
  readonly sizeBytes: number;
  readonly kind: MemberKind;
  readonly signed: boolean;
  /** Set for bit fields only: position counted from bit 0 of the byte at `offsetBytes`, and width. */
  readonly bits: { readonly offset: number; readonly width: number } | undefined;
  /** Set for arrays. */
  readonly element: { readonly count: number; readonly layout: MemberLayout } | undefined;
  /** Set for a structure with exactly one member at offset 0: that member (`atomic_t` and its like). */
  readonly only: MemberLayout | undefined;
  /** Name of the structure or union, if it has one. */
  readonly structName: string | undefined;
}

/** Where structure layouts come from: BTF, of the dump itself or kept in a profile. */
export interface Layouts {
  /** Size in bytes of a struct, union or typedef; undefined if the kernel has none of that name. */
  sizeOf(structName: string): number | undefined;
  /** A member by path (`thread.fsbase`, `sig[0]`); undefined if any part of it does not exist. */
  member(structName: string, path: string): MemberLayout | undefined;
  /** Value of an enumerator (`PIDTYPE_TGID`); undefined if there is none. */
  enumerator(name: string): number | undefined;
}
