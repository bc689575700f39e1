import { setTimeout as sleep } from 'node:timers/promises';
import type { Conversation } from './conversation.ts';

const LOOK_MILLISECONDS = 200;

/**
 * QEMU's user networking (libslirp, `tcp_timer.c`) gives a connection up when nothing was answered for some
 * 550 s of real time, however little of that the guest had: 12 tries, up to 12 s apart, then 7 more with each
 * half of the size of a segment.
 */
const NETWORK_SECONDS = 500;
const NETWORK_GAVE_UP = "QEMU's user networking may have given it up: is the host busy?";

/**
 * Waits until each conversation has come to where it is to come to, was ended by the other side, or hangs.
 * @param hangSeconds one that makes no progress in one of its directions for so long hangs
 * @param elapsed a clock in seconds: the guest's own time
 * @returns those that did not come there, and why
 */
export async function waitForAll(
  conversations: readonly Conversation[],
  isThere: (conversation: Conversation) => boolean,
  hangSeconds: number,
  elapsed: () => number,
): Promise<Map<Conversation, string>> {
  const failed = new Map<Conversation, string>();
  const last = new Map<Conversation, { readonly progress: readonly number[]; readonly at: number }>();
  let waiting = [...conversations];
  while (waiting.length > 0) {
    const now = elapsed();
    waiting = waiting.filter((conversation) => {
      if (isThere(conversation)) return false;
      const { ended } = conversation.wire;
      if (ended !== undefined) {
        const silence = Math.round(conversation.wire.silence);
        const byNetwork = silence < NETWORK_SECONDS ? '' : `; ${NETWORK_GAVE_UP}`;
        const words = `it was ended (${ended}) after ${silence} s of silence`;
        failed.set(conversation, `${words}, and the report does not say so${byNetwork}`);
        return false;
      }
      const before = last.get(conversation);
      const { progress } = conversation;
      const at = before !== undefined && isSame(before.progress, progress) ? before.at : now;
      last.set(conversation, { progress, at });
      if (now - at < hangSeconds) return true;
      const { asked, answered } = conversation;
      failed.set(
        conversation,
        `it hangs: nothing for ${Math.round(now - at)} s of the guest's own time, ${asked} asked, ${answered} answered`,
      );
      return false;
    });
    if (waiting.length > 0) await sleep(LOOK_MILLISECONDS);
  }
  return failed;
}

function isSame(one: readonly number[], other: readonly number[]): boolean {
  return one.every((value, i) => value === other[i]);
}

/** Whether a conversation has gone on for a while since, in each of its directions. */
export function goesOnSince(conversations: readonly Conversation[]): (one: Conversation) => boolean {
  const since = new Map(conversations.map((one) => [one, one.progress]));
  return (one) => one.progress.every((now, i) => now >= (since.get(one)?.[i] ?? 0) + one.while);
}
