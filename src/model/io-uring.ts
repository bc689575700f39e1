import type { OpenFileCommon } from './open-file.ts';
import type { PageRuns } from './page-runs.ts';

/** Where the head of the shared memory has what: offsets in bytes, as io_uring_setup(2) tells them. */
export interface RingOffsets {
  readonly sqHead: number;
  readonly sqTail: number;
  readonly sqMask: number;
  readonly sqEntries: number;
  readonly sqFlags: number;
  readonly sqDropped: number;
  /** 0 with IORING_SETUP_NO_SQARRAY. */
  readonly sqArray: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly cqMask: number;
  readonly cqEntries: number;
  readonly cqOverflow: number;
  readonly cqes: number;
  readonly cqFlags: number;
}

/** What io_uring_setup(2) made, without requests in flight. */
export interface IoUring extends OpenFileCommon {
  readonly type: 'io-uring';
  /** IORING_SETUP_*. */
  readonly setup: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
  /** How many requests it has taken, modulo 2^32, and how many completions it has put there. */
  readonly requests: number;
  readonly completions: number;
  /** Completions that the program has not said to have read. */
  readonly unread: number;
  /** The thread that alone may use it (IORING_SETUP_SINGLE_ISSUER); undefined if all may. */
  readonly issuer: number | undefined;
  readonly offsets: RingOffsets;
  /** The shared memory: both rings, and the entries of requests. `address` of a run is the offset there. */
  readonly rings: PageRuns;
  readonly entries: PageRuns;
}

/** The part of its shared memory that an area is. */
export type RingPart = 'rings' | 'entries';
