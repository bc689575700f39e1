import { errnoText } from '../../system/errno.ts';
import { ringFlags, SQE_BYTES, SQE_FLAGS, SQE_SKIP_COMPLETION } from '../../system/io-uring.ts';
import type { PlannedRing } from '../images/plan/restore-plan.ts';
import type { RingMemory } from './ring-memory.ts';

/** What of a ring says how far it has to be brought. */
export type Counted = Pick<
  PlannedRing,
  'setup' | 'sqEntries' | 'requests' | 'completions' | 'unread' | 'offsets'
>;

/** Gives requests to the kernel; returns how many, or an errno with its sign changed. */
export type Submit = (count: number) => number;

/** Requests that do nothing (IORING_OP_NOP, 0) and ask for no completion, in all places. */
function skippingEntries({ setup, sqEntries }: Counted): Buffer {
  const stride = (setup & ringFlags.sqe128) === 0 ? SQE_BYTES : 2 * SQE_BYTES;
  const entries = Buffer.alloc(sqEntries * stride);
  for (let at = SQE_FLAGS; at < entries.length; at += stride) entries[at] = SQE_SKIP_COMPLETION;
  return entries;
}

/**
 * Brings a new ring to where an old one was, by requests that do nothing: as many with a completion as the
 * old one has put there, then the others. In new memory every entry is such a request, and every index is
 * valid.
 *
 * The kernel keeps a range of places for completions that it found free (__io_get_cqe), and does not look
 * again before it is used up. So what has been read is never said to be more than it was: else it would write
 * over those that are unread. Throws an Error if the kernel does not take them all.
 */
export function countRequests(ring: Counted, memory: RingMemory, submit: Submit): void {
  const { sqEntries, requests, completions, unread, offsets } = ring;
  let submitted = 0;
  const bringTo = (end: number, before: (count: number) => void): void => {
    while (submitted < end) {
      const count = Math.min(sqEntries, end - submitted);
      before(count);
      memory.setWord(offsets.sqTail, submitted + count);
      const taken = submit(count);
      if (taken !== count)
        throw new Error(`io_uring_enter ${taken < 0 ? `fails (${errnoText(-taken)})` : taken}`);
      submitted += count;
    }
  };
  const lastRead = completions - unread;
  bringTo(completions, () => memory.setWord(offsets.cqHead, Math.min(submitted, lastRead)));
  if (requests > completions) memory.setEntries(skippingEntries(ring));
  bringTo(requests, () => undefined);
  const isThere =
    memory.word(offsets.sqHead) === requests &&
    memory.word(offsets.cqTail) === completions &&
    memory.word(offsets.sqDropped) === 0 &&
    memory.word(offsets.cqOverflow) === 0;
  if (!isThere) throw new Error('it has not counted as many requests as before');
}
