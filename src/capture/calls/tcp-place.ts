import type { KernelStack } from '../../linux/readers/kernel-stack.ts';

/** The bodies of TCP's transfers (net/ipv4/tcp.c), and what each does while it has the lock of its socket. */
const transfers: ReadonlyMap<string, string> = new Map([
  ['tcp_sendmsg', 'tcp_sendmsg_locked'],
  ['tcp_recvmsg', 'tcp_recvmsg_locked'],
]);

/** What a transfer calls before its first byte, and behind its last. */
const aroundTransfer: ReadonlySet<string> = new Set(['lock_sock_nested', 'release_sock']);

/**
 * Functions that a transfer calls when what it has counted, and what the socket has for it, are the same: it
 * is about to look for room or for data, sends, answers, frees what was read, or waits. Those of 6.1 and
 * 6.12, as compilers left them: one that was inlined is named by what it calls.
 */
export const atRest: Readonly<Record<string, ReadonlySet<string>>> = {
  tcp_sendmsg_locked: new Set(
    `tcp_rate_check_app_limited tcp_send_mss tcp_stream_memory_free tcp_stream_alloc_skb tcp_skb_entail
     sk_page_frag_refill tcp_wmem_schedule __tcp_push_pending_frames tcp_push_one sk_stream_wait_memory
     __sk_flush_backlog tcp_push`.split(/\s+/),
  ),
  tcp_recvmsg_locked: new Set(
    `tcp_rcv_space_adjust tcp_update_recv_tstamps sock_rfree skb_attempt_defer_free __kfree_skb
     tcp_cleanup_rbuf sk_wait_data __sk_flush_backlog`.split(/\s+/),
  ),
};

/**
 * Where a thread is in a transfer through TCP.
 * - `outside`: in none.
 * - `at-rest`: what its call has counted is what the socket has taken or given.
 * - `between`: a byte may be counted by one of them alone.
 * - `unknown`: its stack does not tell.
 */
export type TcpPlace = 'outside' | 'at-rest' | 'between' | 'unknown';

function bodyAt({ frames }: Pick<KernelStack, 'frames'>): number {
  return frames.findLastIndex((frame) => transfers.has(frame.function ?? ''));
}

/**
 * From where on its kernel stack a thread has what the callers of TCP's part of a transfer have: there the
 * call is counted. What is further in may be on another stack (that of interrupts).
 *
 * @returns undefined if it is not in that part
 */
export function tcpCallersFrom(stack: KernelStack): bigint | undefined {
  return stack.end === 'user' ? stack.frames[bodyAt(stack)]?.sp : undefined;
}

/**
 * What the functions that take the lock of a socket and give it back (net/core/sock.c) call while the thread
 * has it: after it is taken, and before it is given back. A call at a function's end has taken its place.
 */
export const calledWithLock: Readonly<Record<string, ReadonlySet<string>>> = {
  lock_sock_nested: new Set(['_raw_spin_unlock_bh', '__local_bh_enable_ip']),
  release_sock: new Set(['_raw_spin_lock_bh', '__release_sock', 'tcp_release_cb']),
};
/** Waits for what comes, and gives the lock away meanwhile. */
const waits: ReadonlySet<string> = new Set(['sk_wait_data', 'sk_stream_wait_memory']);

/**
 * Whether a thread certainly has the lock of the socket that it moves bytes of. One that waits for the lock,
 * or has given it away until something comes, has not; nor one that is about to take it.
 */
export function hasSocketLock({ frames, end }: KernelStack): boolean {
  if (end !== 'user') return false;
  const inward = frames.slice(0, bodyAt({ frames }) + 1).reverse();
  const body = inward[0];
  if (body === undefined) return false;
  // What has interrupted it is not its own.
  const last = inward.findIndex(({ isInterrupted }) => isInterrupted);
  const own = last < 0 ? inward : inward.slice(0, last + 1);
  const at = own.findIndex((frame) => calledWithLock[frame.calls ?? ''] !== undefined);
  const locking = own[at]?.calls;
  if (locking !== undefined) {
    const next = own[at + 1];
    // Through a pointer, it is known by what it has called.
    const called = next?.function === locking ? [next.calls, own[at + 2]?.function] : [next?.function];
    return called.some((name) => calledWithLock[locking]?.has(name ?? '') === true);
  }
  const isWaiting = own.some((frame) => waits.has(frame.function ?? ''));
  return !isWaiting && own[1]?.function === transfers.get(body.function ?? '');
}

/** Tells from the kernel stack of a thread where it is in a transfer. */
export function tcpPlace(stack: KernelStack): TcpPlace {
  if (stack.end !== 'user') return 'unknown';
  const at = bodyAt(stack);
  const body = stack.frames[at];
  if (body === undefined) return 'outside';
  if (aroundTransfer.has(body.calls ?? '')) return 'at-rest';
  const inner = stack.frames[at - 1];
  const locked = transfers.get(body.function ?? '') ?? '';
  if (body.calls !== locked || inner?.function !== locked) return 'between';
  return atRest[locked]?.has(inner.calls ?? '') === true ? 'at-rest' : 'between';
}
