import { closeSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { IPPROTO_TCP } from './abi.ts';
import { unmapped } from './ip-address.ts';
import { checked } from './libc.ts';
import { AF_INET, AF_INET6, bind, connect, SOCK_CLOEXEC, send, socket, socketAddress } from './sockets.ts';
import { codeOf, messageWithCauses } from './thrown.ts';
import type { TcpEnds } from './unanswered.ts';

/** include/linux/net.h, include/uapi/linux/in.h */
const SOCK_RAW = 3;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;

const HEADER_BYTES = 20;
/** RFC 9293, 3.1: the header's length in words, the flag, and any window. */
const [WORDS, SYN, WINDOW] = [5, 2, 1024];

/** The checksum of RFC 1071, of an even number of bytes. */
function sumOf(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The checksum of RFC 9293, 3.1, with the pseudo-header of IPv4 or IPv6 (RFC 8200, 8.1). */
function checksum(header: Buffer, from: Uint8Array, to: Uint8Array): number {
  return sumOf(Buffer.concat([from, to, Buffer.from([0, IPPROTO_TCP, 0, header.length]), header]));
}

function synOf({ own, peer }: TcpEnds): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(peer.port, 0);
  header.writeUInt16BE(own.port, 2);
  header.writeUInt8(WORDS << 4, 12);
  header.writeUInt8(SYN, 13);
  header.writeUInt16BE(WINDOW, 14);
  header.writeUInt16BE(checksum(header, peer.address, own.address), 16);
  return header;
}

/**
 * Sends a packet over the loopback, from one address to another.
 *
 * @throws SystemCallError
 */
function sendRaw(protocol: number, source: Uint8Array, destination: Uint8Array, packet: Buffer): void {
  const family = destination.length === 4 ? AF_INET : AF_INET6;
  const raw = checked('socket', socket(family, SOCK_RAW | SOCK_CLOEXEC, protocol));
  try {
    // A raw socket has no port.
    const [from, to] = [source, destination].map((address) => socketAddress({ address, port: 0 }));
    if (from === undefined || to === undefined) return;
    checked('bind', bind(raw, from, from.length));
    checked('connect', connect(raw, to, to.length));
    checked('send', send(raw, packet, packet.length, 0));
  } finally {
    closeSync(raw);
  }
}

/**
 * Has an end of a connection over the loopback find out whether its other end is there (RFC 9293, 3.5.1,
 * half-open connections). A SYN comes to it as from there. It changes nothing, and answers with what it has
 * (RFC 5961, 4.2): its other end takes that as nothing new, and where there is none the kernel answers with
 * the reset that fits.
 *
 * @throws SystemCallError
 */
export function askEnd(ends: TcpEnds): void {
  sendRaw(IPPROTO_TCP, ends.peer.address, ends.own.address, synOf(ends));
}

/** RFC 792 (destination unreachable, host) and RFC 4443, 3.1 (destination unreachable, no route). */
const UNREACHABLE = { four: { type: 3, code: 1 }, six: { type: 1, code: 0 } } as const;

/**
 * Says to an end that what it sent last was not delivered: its kernel takes back the last doubling of its
 * time until it sends again (RFC 6069; tcp_ld_RTO_revert(), net/ipv4/tcp_ipv4.c).
 *
 * @param unconfirmed the sequence number from which on nothing is confirmed to it
 */
function sayUndelivered({ own, peer }: TcpEnds, unconfirmed: number): void {
  const isFour = own.address.length === 4;
  const { type, code } = isFour ? UNREACHABLE.four : UNREACHABLE.six;
  const head = Buffer.alloc(8);
  head.writeUInt8(type, 0);
  head.writeUInt8(code, 1);
  const packet = Buffer.concat([
    head,
    isFour ? headerFour(own, peer) : headerSix(own, peer),
    Buffer.alloc(8),
  ]);
  packet.writeUInt16BE(own.port, packet.length - 8);
  packet.writeUInt16BE(peer.port, packet.length - 6);
  packet.writeUInt32BE(unconfirmed >>> 0, packet.length - 4);
  // The kernel computes that of ICMPv6.
  if (isFour) packet.writeUInt16BE(sumOf(packet), 2);
  sendRaw(isFour ? IPPROTO_ICMP : IPPROTO_ICMPV6, own.address, own.address, packet);
}

/** The IPv4 header (RFC 791) of what one end sent. */
function headerFour(from: TcpEnds['own'], to: TcpEnds['own']): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt8(0x45, 0);
  header.writeUInt16BE(header.length + HEADER_BYTES, 2);
  header.writeUInt8(64, 8);
  header.writeUInt8(IPPROTO_TCP, 9);
  header.set(from.address, 12);
  header.set(to.address, 16);
  header.writeUInt16BE(sumOf(header), 10);
  return header;
}

/** The IPv6 header (RFC 8200) of what one end sent. */
function headerSix(from: TcpEnds['own'], to: TcpEnds['own']): Buffer {
  const header = Buffer.alloc(40);
  header.writeUInt8(0x60, 0);
  header.writeUInt16BE(HEADER_BYTES, 4);
  header.writeUInt8(IPPROTO_TCP, 6);
  header.writeUInt8(64, 7);
  header.set(from.address, 8);
  header.set(to.address, 24);
  return header;
}

/** States of include/net/tcp_states.h in which a socket has no connection, has none yet, or is nobody's. */
const WITHOUT: ReadonlySet<number> = new Set([2, 3, 6, 7, 10, 12]);
/** The timer of /proc/net/tcp (`tr`) with which a segment is sent again (get_tcp4_sock(), tcp_ipv4.c). */
const RETRANSMITS = 1;

/** An address of /proc/net/tcp or tcp6: words of 32 bits as this machine has them, then the port. */
function parseEnd(text: string): string {
  const [words = '', port = ''] = text.split(':');
  const bytes = Buffer.from(words, 'hex').swap32();
  return keyOf({ address: bytes, port: Number.parseInt(port, 16) });
}

function keyOf({ address, port }: TcpEnds['own']): string {
  return `${Buffer.from(unmapped(address)).toString('hex')}:${port}`;
}

/** What an end of a connection is known by: both addresses, whether or not one is mapped, and both ports. */
export function endKey({ own, peer }: TcpEnds): string {
  return `${keyOf(own)} ${keyOf(peer)}`;
}

/** The same of its other end. */
export function otherEndKey({ own, peer }: TcpEnds): string {
  return endKey({ own: peer, peer: own });
}

/** The ends of connections that this machine has now, in the network namespace of this process. */
export class TcpEndsNow {
  readonly #keys = new Set<string>();
  readonly #unanswered = new Set<string>();

  /**
   * @param tables as /proc/net/tcp and /proc/net/tcp6 have them. The kernel does not write one at a single
   *   moment, and one may lack an end that is there, while others end: each is read twice
   */
  constructor(tables: readonly string[] = [...TABLES, ...TABLES].map(readTable)) {
    for (const line of tables.flatMap((table) => table.split('\n').slice(1))) {
      const [, own, peer, state, , timer, retransmits] = line.trim().split(/\s+/);
      if (own === undefined || peer === undefined || state === undefined) continue;
      if (WITHOUT.has(Number.parseInt(state, 16))) continue;
      const key = `${parseEnd(own)} ${parseEnd(peer)}`;
      this.#keys.add(key);
      const isSending = Number.parseInt(timer ?? '', 16) === RETRANSMITS;
      if (isSending && Number.parseInt(retransmits ?? '', 16) > 0) this.#unanswered.add(key);
      else this.#unanswered.delete(key);
    }
  }

  has(ends: TcpEnds): boolean {
    return this.#keys.has(endKey(ends));
  }

  /** Whether an end has sent something more than once, and waits for the answer. */
  isUnanswered(ends: TcpEnds): boolean {
    return this.#unanswered.has(endKey(ends));
  }
}

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'] as const;

function readTable(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    // There is no IPv6.
    if (codeOf(error) === 'ENOENT') return '';
    throw error;
  }
}

/** Whether one end is there, and the other one is not. */
function isHalfOpen({ own, peer }: TcpEnds, now: TcpEndsNow): boolean {
  return now.has({ own, peer }) && !now.has({ own: peer, peer: own });
}

/** A socket answers twice a second at most (__tcp_oow_rate_limited(), net/ipv4/tcp_input.c). */
const BETWEEN_MILLISECONDS = 600;
const MOST_MILLISECONDS = 3000;
const POLL_MILLISECONDS = 100;

/** An end that could not be helped, and why. */
export interface Unhelped<Ends extends TcpEnds> {
  readonly end: Ends;
  readonly problem: string;
}

/** Does something with each end; what goes wrong with one is not the others' affair. */
function withEach<Ends extends TcpEnds>(
  ends: readonly Ends[],
  problems: Map<Ends, string>,
  act: (end: Ends) => void,
): void {
  for (const end of ends) {
    try {
      act(end);
      problems.delete(end);
    } catch (error) {
      problems.set(end, messageWithCauses(error));
    }
  }
}

/**
 * Has ends of connections end with a reset of which the other end is not there, and asks until they have, for
 * three seconds at most. Nothing may leave them unanswered. Each is asked once whatever a list says of it: it
 * does no harm.
 *
 * @returns those that are there all the same, alone
 * @throws Error if it cannot be read which there are
 */
export async function resetHalfOpen<Ends extends TcpEnds>(
  all: readonly Ends[],
): Promise<readonly Unhelped<Ends>[]> {
  const problems = new Map<Ends, string>();
  const end = performance.now() + MOST_MILLISECONDS;
  let left = all;
  while (left.length > 0 && performance.now() < end) {
    withEach(left, problems, askEnd);
    const next = performance.now() + BETWEEN_MILLISECONDS;
    do {
      await sleep(POLL_MILLISECONDS);
      const now = new TcpEndsNow();
      left = left.filter((one) => isHalfOpen(one, now));
    } while (left.length > 0 && performance.now() < next);
  }
  return left.map((one) => ({
    end: one,
    problem: problems.get(one) ?? 'it does not answer, or not through',
  }));
}

/** An end that may have sent what nobody has answered. */
export interface SendingEnd extends TcpEnds {
  /** The sequence number from which on nothing is confirmed to it. */
  readonly unconfirmed: number;
}

/** A back-off has 16 steps at most; each is taken back by itself. */
const MOST_HURRIES = 20;

/**
 * Has ends that wait for an answer send again at once: their other ends are there now. Without it they would
 * wait for up to two minutes more, and one that has sent for the last time would give up then, without a word
 * to its other end. It gives up at once instead.
 *
 * @returns those that have not been answered, and are there
 * @throws Error if it cannot be read which there are
 */
export async function hurry<Ends extends SendingEnd>(all: readonly Ends[]): Promise<readonly Ends[]> {
  let left = all;
  for (let tries = 0; ; tries++) {
    const now = new TcpEndsNow();
    left = left.filter((one) => now.isUnanswered(one));
    if (left.length === 0 || tries === MOST_HURRIES) return left;
    // One that cannot be hurried is among those that are left.
    withEach(left, new Map(), (one) => sayUndelivered(one, one.unconfirmed));
    await sleep(POLL_MILLISECONDS);
  }
}
