import { type InetSock, inetSock, networkPort } from '../../../../linux/inet.ts';
import { family, type Sock, sockStruct } from '../../../../linux/sock.ts';
import { IPPROTO_TCP } from '../../../../system/abi.ts';
import { isLoopbackAddress, unmapped } from '../../../../system/ip-address.ts';
import type { TcpEnd } from '../../../../system/sockets.ts';
import { readable } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { connectedStates } from './tcp-states.ts';

export interface Ends {
  /** Address of the network namespace. */
  readonly network: bigint;
  readonly own: TcpEnd;
  readonly peer: TcpEnd;
}

/** An IPv6 socket has the same connection as an IPv4 one if its addresses stand for IPv4 ones. */
export function endsOf(sock: Sock, inet: InetSock): Ends {
  const isSix = sock.family === family.inet6;
  const [own, peer] = isSix ? [inet.saddr6, inet.daddr6] : [inet.saddr, inet.daddr];
  return {
    network: sock.net,
    own: { address: unmapped(own), port: networkPort(inet.sourcePort) },
    peer: { address: unmapped(peer), port: networkPort(inet.destinationPort) },
  };
}

function keyOf(from: TcpEnd, to: TcpEnd): string {
  const ends = [from, to].map(({ address, port }) => `${Buffer.from(address).toString('hex')}:${port}`);
  return ends.join(' ');
}

/** An address in a network namespace. */
function placeOf(network: bigint, address: Uint8Array): string {
  return `${network} ${Buffer.from(address).toString('hex')}`;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.from(a).equals(b);
}

export interface Found extends Ends {
  /** Of the `sock`. */
  readonly socket: bigint;
}

/** All TCP connections of which a process holds an end. One that cannot be read is nobody's peer. */
export class Connections {
  readonly #byEnds = new Map<string, Found[]>();
  /** At which addresses a process has a connection. */
  readonly #places = new Set<string>();
  /** By their ends: how many sockets have, make or had a connection. */
  readonly #inAnyState = new Map<string, number>();

  constructor({ kernel, system }: CaptureContext) {
    for (const socket of system.objectsOf('socket')) {
      const { state, ends } = readable(() => this.#read(kernel, socket)) ?? {};
      if (state === undefined || ends === undefined) continue;
      const key = keyOf(ends.own, ends.peer);
      this.#inAnyState.set(key, (this.#inAnyState.get(key) ?? 0) + 1);
      if (!connectedStates.has(state)) continue;
      const found = { ...ends, socket };
      this.#places.add(placeOf(ends.network, ends.own.address));
      const alike = this.#byEnds.get(key);
      if (alike === undefined) this.#byEnds.set(key, [found]);
      else alike.push(found);
    }
  }

  #read(kernel: Kernel, address: bigint): { state: number; ends: Ends } | undefined {
    const sock = kernel.bind(sockStruct).at(address);
    const isInet = sock.family === family.inet || sock.family === family.inet6;
    if (!isInet || sock.sk_protocol !== IPPROTO_TCP) return undefined;
    return { state: sock.state, ends: endsOf(sock, kernel.bind(inetSock).at(address)) };
  }

  /** The socket at the other end; in another network namespace only if this one has none. */
  peerOf({ network, own, peer }: Ends): Found | undefined {
    const found = this.#byEnds.get(keyOf(peer, own)) ?? [];
    return found.find((one) => one.network === network) ?? found[0];
  }

  /** Whether more than one socket has, makes or had a connection with these ends. */
  isTaken({ own, peer }: Ends): boolean {
    return (this.#inAnyState.get(keyOf(own, peer)) ?? 0) > 1;
  }

  /**
   * Whether the other end is, or was, on this machine: on the loopback, or at an address at which a process
   * has a connection.
   */
  isWithin({ network, own, peer }: Ends): boolean {
    if (isLoopbackAddress(peer.address) || isSame(own.address, peer.address)) return true;
    return this.#places.has(placeOf(network, peer.address));
  }
}
