import { isAtWork, type Sock, sockFlag, tcpState } from '../../../../linux/sock.ts';
import { sequenceAfter, sequenceDistance, TCP_ECN_OK, type TcpSock } from '../../../../linux/tcp.ts';
import type { Clocks } from '../../../../linux/timekeeping.ts';
import type { StreamBytes, TcpConnection } from '../../../../model/socket.ts';
import { VmcoreError } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { FileRefusal, type PossibleLoss } from '../../refusal.ts';
import { checkOrder, checkPlausible } from './tcp-plausible.ts';
import { disagree, receiveQueue, retransmitQueue, sentTo, writeQueue } from './tcp-queue.ts';
import { sandboxProblem } from './tcp-sandbox.ts';
import { ending, peerEnded } from './tcp-states.ts';
import { checkWork, readAtWork } from './tcp-work.ts';
import { protectionProblem, socketProblem } from './transport-options.ts';

/** What has more to do with the kernel than a reset would end, and damage. Throws a FileRefusal. */
export function checkOwn(kernel: Kernel, sock: Sock, tcp: TcpSock): void {
  const refuse = (what: string): never => {
    throw new FileRefusal(`has a TCP connection ${what}`);
  };
  checkPlausible(kernel, sock, tcp);
  if (sock.sk_user_data !== 0n) refuse('that something in the kernel uses (BPF, NBD, iSCSI or the like)');
  if (tcp.repair !== 0) refuse('that was being checkpointed (TCP_REPAIR)');
  // At a reset the kernel tells which memory can be used again.
  if (sock.sk_zckey !== 0) refuse('that has sent without copying (MSG_ZEROCOPY)');
  // A call that was at work may have given what was not decrypted, and a new connection would have no key.
  const problem = protectionProblem(tcp);
  if (problem !== undefined) refuse(problem);
}

/** Why a connection that can be read, or is begun anew, cannot be as it was. */
export function uncarried(context: CaptureContext, sock: Sock, tcp: TcpSock): string | undefined {
  const problem = sandboxProblem(context, sock);
  if (problem !== undefined) return problem;
  if (tcp.is_mptcp === 1) return 'over several paths (MPTCP)';
  if (tcp.fastopen_rsk !== 0n || tcp.fastopen_req !== 0n) return 'that is being opened (TCP_FASTOPEN)';
  if (tcp.urg_data !== 0 || sequenceDistance(tcp.snd_una, tcp.snd_up) > 0)
    return 'with urgent data (MSG_OOB)';
  if (tcp.tcp_usec_ts === 1) return 'with time stamps in microseconds (tcp_usec_ts)';
  return socketProblem(tcp);
}

/**
 * What of a connection can be lost instead of its process; undefined if it can be kept, if more would be
 * lost, or if it is damaged.
 */
export function possibleLoss(context: CaptureContext, sock: Sock, tcp: TcpSock): PossibleLoss | undefined {
  // Its queues are not looked into without need.
  if (!isAtWork(sock) && uncarried(context, sock, tcp) === undefined) return undefined;
  try {
    readConnection(context, sock, tcp);
  } catch (error) {
    if (error instanceof FileRefusal) return error.loss;
    if (!(error instanceof VmcoreError)) throw error;
  }
  return undefined;
}

/** A window that fits any numbers. */
const BROKEN_WINDOW = 65_535;
const BROKEN_MSS = 1460;

/**
 * A connection in the place of one that is lost, with nothing in its queues. It is there until it is reset,
 * which it is before its process runs.
 */
export function connectionToBreak(tcp: TcpSock): TcpConnection {
  const { rcv_nxt, write_seq } = tcp;
  const none = { data: [], bytes: 0 };
  return {
    ...{ receivedTo: rcv_nxt, unread: none, writtenTo: write_seq, unacknowledged: none, unsentBytes: 0 },
    ...{ mssClamp: BROKEN_MSS, hasSelectiveAcks: false, scale: undefined, timestamp: undefined },
    window: {
      ...{ sendUpdate: rcv_nxt, send: BROKEN_WINDOW, largest: BROKEN_WINDOW },
      ...{ receive: BROKEN_WINDOW, receiveUpdate: rcv_nxt },
    },
  };
}

/**
 * Nanoseconds by which a socket's clock may be before the last tick: pacing and TCP_TX_DELAY plan ahead. What
 * is further on by 2^31 milliseconds would be the past for the peer, which would drop all that comes.
 */
const MAX_AHEAD = 3_600_000_000_000n;

/**
 * The time stamp that the next segment has, in milliseconds. The peer drops one that is before the last
 * (PAWS, RFC 7323), and the clock is known as of a tick before the end: so the latest of what the socket has
 * seen counts as well. Even numbers only: in 6.7 and later an odd one means microseconds.
 */
export function nextTimestamp(
  { monotonic }: Pick<Clocks, 'monotonic'>,
  {
    tcp_clock_cache,
    tcp_wstamp_ns,
    tsoffset,
  }: Pick<TcpSock, 'tcp_clock_cache' | 'tcp_wstamp_ns' | 'tsoffset'>,
): number {
  const latest = [monotonic, tcp_clock_cache, tcp_wstamp_ns].reduce((a, b) => (a > b ? a : b));
  if (latest > monotonic + MAX_AHEAD) disagree('its clock is ahead of the time');
  const stamp = sequenceAfter(tsoffset, Number(BigInt.asUintN(32, latest / 1_000_000n)) + 1);
  return sequenceAfter(stamp, stamp % 2);
}

/** Throws a FileRefusal for what TCP_REPAIR_WINDOW does not take (tcp_repair_set_window, net/ipv4/tcp.c). */
function windowOf(tcp: TcpSock): TcpConnection['window'] {
  const { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup, rcv_nxt } = tcp;
  const isAhead = sequenceDistance(sequenceAfter(rcv_nxt, rcv_wnd), snd_wl1) > 0;
  if (max_window < snd_wnd || isAhead || sequenceDistance(rcv_nxt, rcv_wup) > 0)
    disagree('its windows are impossible');
  return {
    ...{ sendUpdate: snd_wl1, send: snd_wnd, largest: max_window },
    ...{ receive: rcv_wnd, receiveUpdate: rcv_wup },
  };
}

function unreadOf(kernel: Kernel, sock: Sock, tcp: TcpSock): StreamBytes {
  const unread = receiveQueue(kernel, sock, tcp);
  const isFinRead = unread.bytes === 0 && !unread.hasFin && sockFlag(kernel, sock, 'done');
  if (peerEnded.has(sock.state) ? !unread.hasFin && !isFinRead : unread.hasFin)
    disagree('the end that it has received does not fit its state');
  return { data: unread.data, bytes: unread.bytes };
}

function unacknowledgedOf(
  kernel: Kernel,
  sock: Sock,
  tcp: TcpSock,
): Pick<TcpConnection, 'unacknowledged' | 'unsentBytes'> {
  const sent = retransmitQueue(kernel, sock, tcp);
  const unsent = writeQueue(kernel, sock, tcp);
  if (sent.hasFin && unsent.bytes > 0) disagree('it has something to send behind its end');
  if ((sent.hasFin || unsent.hasFin) !== ending.has(sock.state))
    disagree('the end that it has sent does not fit its state');
  const unacknowledged = { data: [...sent.data, ...unsent.data], bytes: sent.bytes + unsent.bytes };
  if (sock.state === tcpState.finWait2 && unacknowledged.bytes > 0)
    disagree('it has something to send behind its end');
  const isUncounted = isAtWork(sock) && unsent.bytes > 0;
  const uncounted = isUncounted ? sequenceDistance(tcp.snd_nxt, sentTo(kernel, sock, tcp)) : 0;
  return { unacknowledged, unsentBytes: unsent.bytes - uncounted };
}

function noteLosses(context: CaptureContext, sock: Sock, tcp: TcpSock, where: string): void {
  const note = (text: string): void =>
    context.noteHolders(context.system.holdersOfObject(sock.address), `the connection to ${where} ${text}`);
  if ((tcp.ecn_flags & TCP_ECN_OK) !== 0) note('no longer uses congestion notification (ECN)');
  if (tcp.saved_syn !== 0n) note('no longer has the segment that it began with (TCP_SAVED_SYN)');
}

/**
 * The queues are looked into before what cannot be carried counts: damage is no loss. Of a connection that
 * somebody was at, the order of its numbers has to do for that, as it may be lost for what is in its queues.
 */
function readConnection(context: CaptureContext, sock: Sock, tcp: TcpSock): TcpConnection {
  const { kernel, clocks } = context;
  checkOwn(kernel, sock, tcp);
  if (isAtWork(sock)) checkOrder(tcp);
  checkWork(context, sock);
  const connection = readAtWork(kernel, [{ sock, tcp }], 'can-be-lost', () => ({
    receivedTo: tcp.rcv_nxt,
    unread: unreadOf(kernel, sock, tcp),
    writtenTo: tcp.write_seq,
    ...unacknowledgedOf(kernel, sock, tcp),
    mssClamp: tcp.mssClamp,
    hasSelectiveAcks: tcp.hasSack !== 0,
    scale: tcp.hasScale === 0 ? undefined : { send: tcp.sendScale, receive: tcp.receiveScale },
    timestamp: tcp.hasTimestamps === 0 ? undefined : nextTimestamp(clocks, tcp),
    window: windowOf(tcp),
  }));
  const why = uncarried(context, sock, tcp);
  if (why === undefined) return connection;
  throw new FileRefusal(`has a TCP connection ${why}`, undefined, { kind: 'connections', why });
}

/**
 * The connection of a TCP socket that has one. What was acknowledged to the peer is all in it; what was not,
 * the peer sends again: segments out of order, and those that the kernel had not looked at.
 *
 * @param where the peer, for people
 * @throws FileRefusal if what was being done with it cannot be decided, if it holds what TCP_REPAIR cannot
 * make again, or if what it counts and what it holds disagree
 */
export function tcpConnection(
  context: CaptureContext,
  sock: Sock,
  tcp: TcpSock,
  where: string,
): TcpConnection {
  const connection = readConnection(context, sock, tcp);
  noteLosses(context, sock, tcp, where);
  return connection;
}
