/** A range of physical memory, in bytes; `end` is exclusive. Addresses have at most 52 bits. */
export interface Range {
  readonly start: number;
  readonly end: number;
}
