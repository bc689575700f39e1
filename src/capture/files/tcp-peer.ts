import { type InetSock, inetSock, networkPort } from '../../linux/inet.ts';
import { family, type Sock, sockStruct } from '../../linux/sock.ts';
import type { LateOption } from '../../model/socket-option.ts';
import { isLoopbackAddress, unmapped } from '../../system/ip-address.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import { showHolder } from './holders.ts';
import { connectedStates } from './tcp-connection.ts';

const IPPROTO_TCP = 6;

/** One end of a connection. */
interface End {
  readonly address: Uint8Array;
  readonly port: number;
}

interface Ends {
  /** Address of the network namespace. */
  readonly network: bigint;
  readonly own: End;
  readonly peer: End;
}

/** An IPv6 socket has the same connection as an IPv4 one if its addresses stand for IPv4 ones. */
function endsOf(sock: Sock, inet: InetSock): Ends {
  const isSix = sock.family === family.inet6;
  const [own, peer] = isSix ? [inet.saddr6, inet.daddr6] : [inet.saddr, inet.daddr];
  return {
    network: sock.net,
    own: { address: unmapped(own), port: networkPort(inet.sourcePort) },
    peer: { address: unmapped(peer), port: networkPort(inet.destinationPort) },
  };
}

function keyOf(network: bigint, from: End, to: End): string {
  const ends = [from, to].map(({ address, port }) => `${Buffer.from(address).toString('hex')}:${port}`);
  return `${network} ${ends.join(' ')}`;
}

/** All TCP connections of which a process holds an end. One that cannot be read is nobody's peer. */
class Connections {
  readonly #byEnds = new Map<string, bigint>();

  constructor({ kernel, system }: CaptureContext) {
    for (const address of system.objectsOf('socket')) {
      const ends = readable(() => this.#read(kernel, address));
      if (ends !== undefined) this.#byEnds.set(keyOf(ends.network, ends.own, ends.peer), address);
    }
  }

  #read(kernel: Kernel, address: bigint): Ends | undefined {
    const sock = kernel.bind(sockStruct).at(address);
    const isInet = sock.family === family.inet || sock.family === family.inet6;
    if (!isInet || sock.sk_protocol !== IPPROTO_TCP || !connectedStates.has(sock.state)) return undefined;
    return endsOf(sock, kernel.bind(inetSock).at(address));
  }

  /** Address of the socket at the other end. */
  peerOf({ network, own, peer }: Ends): bigint | undefined {
    return this.#byEnds.get(keyOf(network, peer, own));
  }
}

/** Whether the other end is, or was, on this machine. */
function isWithin({ own, peer }: Ends): boolean {
  return isLoopbackAddress(peer.address) || Buffer.from(own.address).equals(peer.address);
}

/**
 * Has the kernel ask every second whether the peer is there. That answers with a reset, as a machine that has
 * crashed does: who waits for the peer hears of it.
 */
const askPeer: readonly LateOption[] = [
  { name: 'SO_KEEPALIVE', value: 1 },
  { name: 'TCP_KEEPIDLE', value: 1 },
  { name: 'TCP_KEEPINTVL', value: 1 },
  { name: 'TCP_KEEPCNT', value: 127 },
];

/**
 * Who is at the other end of a connection, if that is a process of the same machine: it has to come back with
 * this one. If it does not, its end has gone with the kernel, as if it had crashed.
 *
 * @param where the peer, for people
 * @returns options with which the socket hears that its peer is gone; none if it is there
 */
export function connectPeer(
  context: CaptureContext,
  sock: Sock,
  inet: InetSock,
  where: string,
): readonly LateOption[] {
  const { system } = context;
  const ends = endsOf(sock, inet);
  const peer = context.of(Connections).peerOf(ends);
  if (peer === undefined && !isWithin(ends)) return [];
  const holders = system.holdersOfObject(sock.address);
  const others = peer === undefined ? [] : system.holdersOfObject(peer);
  const outsider = others.find(({ isProtected }) => !isProtected);
  if (others.length > 0 && outsider === undefined) {
    const pids = [...holders, ...others].map(({ pid }) => pid);
    context.join(pids, 'a TCP connection');
    return [];
  }
  const why =
    outsider === undefined
      ? 'no process had its other end'
      : `its other end was that of ${showHolder(outsider)}, which is not protected`;
  context.noteHolders(holders, `the connection to ${where} is reset: ${why}`);
  return askPeer;
}
