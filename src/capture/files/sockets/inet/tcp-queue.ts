import { rbTreeForEachEntry } from '../../../../linux/rbtree.ts';
import { type SkBuff, skBuff, skbData, skbQueue } from '../../../../linux/skbuff.ts';
import { isAtWork, type Sock } from '../../../../linux/sock.ts';
import { sequenceAfter, sequenceDistance, skbSequence, type TcpSock } from '../../../../linux/tcp.ts';
import type { PhysicalRun } from '../../../../model/open-file.ts';
import type { StreamBytes } from '../../../../model/socket.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { FileRefusal } from '../../refusal.ts';

/** A buffer of a connection: its bytes, and a FIN behind them if `end` is one further. */
export interface Segment {
  readonly start: number;
  readonly end: number;
  readonly bytes: number;
  /** Where its bytes lie from byte `skip` on. */
  data(skip: number): readonly PhysicalRun[];
}

/** What lies in one queue between two sequence numbers. */
export interface QueueContent extends StreamBytes {
  /** A FIN is behind it. */
  readonly hasFin: boolean;
}

/** What a connection counts and what it has are different things. */
export class Disagreement extends FileRefusal {
  readonly problem: string;

  constructor(problem: string) {
    super(`has a TCP connection that is damaged: ${problem}`);
    this.problem = problem;
    this.isDamage = true;
  }
}

/** Throws a {@link Disagreement}. */
export function disagree(problem: string): never {
  throw new Disagreement(problem);
}

/**
 * The bytes that segments hold from one sequence number to another. A segment may begin before the one that
 * it follows has ended, as what arrives does, unless `exact`.
 *
 * @param what the queue, for the refusal
 * @throws FileRefusal if bytes are missing, or there are others than the sequence numbers say
 */
export function contentBetween(
  segments: readonly Segment[],
  from: number,
  to: number,
  what: string,
  exact = false,
): QueueContent {
  const data: PhysicalRun[] = [];
  let at = from;
  let hasFin = false;
  for (const [i, segment] of segments.entries()) {
    const fin = sequenceDistance(sequenceAfter(segment.start, segment.bytes), segment.end);
    if (fin !== 0 && fin !== 1) disagree(`a buffer of ${what} has another length than it counts`);
    if (hasFin) disagree(`${what} goes on behind its end`);
    const skip = sequenceDistance(segment.start, at);
    if (skip < 0 || (exact && i > 0 && skip > 0)) disagree(`${what} has a hole or bytes twice`);
    if (skip > segment.bytes + fin) disagree(`${what} has bytes that were taken already`);
    if (skip < segment.bytes) data.push(...segment.data(skip));
    hasFin = fin === 1 && skip <= segment.bytes;
    at = segment.end;
  }
  if (at !== to) disagree(`${what} ends ${sequenceDistance(at, to)} bytes before it should`);
  return { data, bytes: sequenceDistance(from, to) - (hasFin ? 1 : 0), hasFin };
}

/**
 * The pieces of a buffer are moved up one by one when its first ones have gone (__pskb_trim_head,
 * net/ipv4/tcp_output.c), and its length is set after that. Where they are of one size, it shows in nothing
 * but a piece that is there twice.
 */
function checkPieces(runs: readonly PhysicalRun[]): void {
  const places = new Set(runs.map(({ physical, length }) => `${physical} ${length}`));
  if (places.size < runs.length) disagree('a buffer has a piece twice');
}

function segmentOf(kernel: Kernel, sock: Sock, skb: SkBuff): Segment {
  const { seq, end_seq } = skbSequence(kernel, skb);
  const data = (skip: number): readonly PhysicalRun[] => {
    if (isAtWork(sock)) checkPieces(skbData(kernel, skb));
    return skbData(kernel, skb, skip);
  };
  return { start: seq, end: end_seq, bytes: skb.len, data };
}

/** What was received in order and not read, with the peer's FIN if that was not read either. */
export function receiveQueue(kernel: Kernel, sock: Sock, tcp: TcpSock): QueueContent {
  const segments = skbQueue(kernel, sock.receiveQueue).map((skb) => segmentOf(kernel, sock, skb));
  return contentBetween(segments, tcp.copied_seq, tcp.rcv_nxt, 'what was received');
}

/** What was sent and not acknowledged: a tree, in the order of the stream. */
export function retransmitQueue(kernel: Kernel, sock: Sock, tcp: TcpSock): QueueContent {
  const buffers = rbTreeForEachEntry(kernel, sock.retransmitQueue, kernel.bind(skBuff), 'rbnode');
  const segments = Array.from(buffers, (skb) => segmentOf(kernel, sock, skb));
  return contentBetween(segments, tcp.snd_una, tcp.snd_nxt, 'what was sent', true);
}

/** What was written and not sent yet. */
export function writeQueue(kernel: Kernel, sock: Sock, tcp: TcpSock): QueueContent {
  const segments = skbQueue(kernel, sock.writeQueue).map((skb) => segmentOf(kernel, sock, skb));
  return contentBetween(segments, tcp.snd_nxt, tcp.write_seq, 'what is to be sent', true);
}

/**
 * Up to where the peer may have what was written. A segment is sent before it is counted (tcp_write_xmit,
 * net/ipv4/tcp_output.c): while somebody is at the connection, the first buffer of what is to be sent may be
 * on its way, and no other. The kernel throws away an acknowledgement of what it has not counted, so it
 * counts as sent here; if it was not, it is as one that was lost.
 */
export function sentTo(
  kernel: Kernel,
  sock: Pick<Sock, 'owned' | 'spinLock' | 'backlogTail' | 'writeQueue'>,
  { snd_nxt }: Pick<TcpSock, 'snd_nxt'>,
): number {
  const [first] = isAtWork(sock) ? skbQueue(kernel, sock.writeQueue) : [];
  return first === undefined ? snd_nxt : skbSequence(kernel, first).end_seq;
}
