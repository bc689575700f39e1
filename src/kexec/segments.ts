import type { Range } from '../system/range.ts';

/** Part of an image that is ready to be loaded. */
export interface Segment {
  /** For messages, and for who looks for it: `kernel`. */
  readonly name: string;
  /** Physical; a multiple of 4096. */
  readonly address: number;
  readonly bytes: Buffer;
  /** A multiple of 4096, at least as many as `bytes` has; the kernel fills the rest with zeros. */
  readonly memoryBytes: number;
}

/** The memory that a segment takes. */
export function segmentRange({ address, memoryBytes }: Segment): Range {
  return { start: address, end: address + memoryBytes };
}
