import { closeSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { unmapped } from './ip-address.ts';
import { checked } from './libc.ts';
import { AF_INET, AF_INET6, bind, connect, SOCK_CLOEXEC, send, socket, socketAddress } from './sockets.ts';
import { codeOf } from './thrown.ts';
import type { TcpEnds } from './unanswered.ts';

/** include/linux/net.h, include/uapi/linux/in.h */
const SOCK_RAW = 3;
const IPPROTO_TCP = 6;

const HEADER_BYTES = 20;
/** RFC 9293, 3.1: the header's length in words, the flag, and any window. */
const [WORDS, SYN, WINDOW] = [5, 2, 1024];

/** The checksum of RFC 9293, 3.1, with the pseudo-header of IPv4 or IPv6 (RFC 8200, 8.1). */
function checksum(header: Buffer, from: Uint8Array, to: Uint8Array): number {
  const bytes = Buffer.concat([from, to, Buffer.from([0, IPPROTO_TCP, 0, header.length]), header]);
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
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
 * Has an end of a connection over the loopback find out whether its other end is there (RFC 9293, 3.5.1,
 * half-open connections). A SYN comes to it as from there. It changes nothing, and answers with what it has
 * (RFC 5961, 4.2): its other end takes that as nothing new, and where there is none the kernel answers with
 * the reset that fits.
 *
 * @throws SystemCallError
 */
export function askEnd(ends: TcpEnds): void {
  const { own, peer } = ends;
  const family = own.address.length === 4 ? AF_INET : AF_INET6;
  const raw = checked('socket', socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP));
  try {
    // A raw socket has no port.
    const [from, to] = [peer, own].map(({ address }) => socketAddress({ address, port: 0 }));
    if (from === undefined || to === undefined) return;
    checked('bind', bind(raw, from, from.length));
    checked('connect', connect(raw, to, to.length));
    const syn = synOf(ends);
    checked('send', send(raw, syn, syn.length, 0));
  } finally {
    closeSync(raw);
  }
}

/** States of include/net/tcp_states.h in which a socket has no connection, or has none yet. */
const WITHOUT: ReadonlySet<number> = new Set([2, 3, 7, 10, 12]);

/** An address of /proc/net/tcp or tcp6: words of 32 bits as this machine has them, then the port. */
function parseEnd(text: string): string {
  const [words = '', port = ''] = text.split(':');
  const bytes = Buffer.from(words, 'hex').swap32();
  return keyOf({ address: bytes, port: Number.parseInt(port, 16) });
}

function keyOf({ address, port }: TcpEnds['own']): string {
  return `${Buffer.from(unmapped(address)).toString('hex')}:${port}`;
}

/** The ends of connections that this machine has now, in the network namespace of this process. */
export class TcpEndsNow {
  readonly #keys = new Set<string>();

  /** @param tables as /proc/net/tcp and /proc/net/tcp6 have them */
  constructor(tables: readonly string[] = ['/proc/net/tcp', '/proc/net/tcp6'].map(readTable)) {
    for (const line of tables.flatMap((table) => table.split('\n').slice(1))) {
      const [, own, peer, state] = line.trim().split(/\s+/);
      if (own === undefined || peer === undefined || state === undefined) continue;
      if (!WITHOUT.has(Number.parseInt(state, 16))) this.#keys.add(`${parseEnd(own)} ${parseEnd(peer)}`);
    }
  }

  has({ own, peer }: TcpEnds): boolean {
    return this.#keys.has(`${keyOf(own)} ${keyOf(peer)}`);
  }
}

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
const MOST_TRIES = 10;
const POLL_MILLISECONDS = 20;

/**
 * Has ends of connections end with a reset of which the other end is not there, and asks until they have.
 * Nothing may leave them unanswered.
 *
 * @returns those that are there all the same, alone
 * @throws SystemCallError
 */
export async function resetHalfOpen<Ends extends TcpEnds>(all: readonly Ends[]): Promise<readonly Ends[]> {
  let left = all;
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const now = new TcpEndsNow();
    left = left.filter((one) => isHalfOpen(one, now));
    if (left.length === 0) return left;
    for (const one of left) askEnd(one);
    for (let waited = 0; waited < BETWEEN_MILLISECONDS; waited += POLL_MILLISECONDS) {
      await sleep(POLL_MILLISECONDS);
      const then = new TcpEndsNow();
      if (!left.some((one) => isHalfOpen(one, then))) return [];
    }
  }
  return left;
}
