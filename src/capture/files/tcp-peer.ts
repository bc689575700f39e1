import { type InetSock, inetSock, networkPort } from '../../linux/inet.ts';
import { family, type Sock, sockStruct } from '../../linux/sock.ts';
import type { LateOption } from '../../model/socket-option.ts';
import { isLoopbackAddress, unmapped } from '../../system/ip-address.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import { showHolder } from './holders.ts';
import { connectedStates } from './tcp-connection.ts';

interface Ends {
  readonly own: string;
  readonly peer: string;
}

function endsOf(sock: Sock, inet: InetSock): Ends {
  const isSix = sock.family === family.inet6;
  const end = (address: Uint8Array, port: Buffer): string =>
    `${sock.net} ${Buffer.from(unmapped(address)).toString('hex')} ${networkPort(port)}`;
  return {
    own: end(isSix ? inet.saddr6 : inet.saddr, inet.sourcePort),
    peer: end(isSix ? inet.daddr6 : inet.daddr, inet.destinationPort),
  };
}

/** All TCP connections of which a process holds an end. One that cannot be read is nobody's peer. */
class Connections {
  readonly #byEnds = new Map<string, bigint>();

  constructor({ kernel, system }: CaptureContext) {
    for (const address of system.objectsOf('socket')) {
      const ends = readable(() => this.#read(kernel, address));
      if (ends !== undefined) this.#byEnds.set(`${ends.own} ${ends.peer}`, address);
    }
  }

  #read(kernel: Kernel, address: bigint): Ends | undefined {
    const sock = kernel.bind(sockStruct).at(address);
    const isInet = sock.family === family.inet || sock.family === family.inet6;
    if (!isInet || sock.sk_protocol !== IPPROTO_TCP || !connectedStates.has(sock.state)) return undefined;
    return endsOf(sock, kernel.bind(inetSock).at(address));
  }

  /** Address of the socket at the other end. */
  peerOf({ own, peer }: Ends): bigint | undefined {
    return this.#byEnds.get(`${peer} ${own}`);
  }
}

const IPPROTO_TCP = 6;

/**
 * Has the kernel ask every second whether the peer is there. That answers with a reset, as a machine that has
 * crashed does: who waits for the peer hears of it.
 */
export const askPeer: readonly LateOption[] = [
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
  const [own] = ends.own.split(/ (?=\d+$)/);
  const [other] = ends.peer.split(/ (?=\d+$)/);
  const address = context.of(Connections).peerOf(ends);
  const isHere = own === other || isLoopbackAddress(sock.family === family.inet6 ? inet.daddr6 : inet.daddr);
  if (address === undefined && !isHere) return [];
  const holders = system.holdersOfObject(sock.address);
  const others = address === undefined ? [] : system.holdersOfObject(address);
  const outsider = others.find(({ isProtected }) => !isProtected);
  if (others.length > 0 && outsider === undefined) {
    context.join(
      [...holders, ...others].map(({ pid }) => pid),
      'a TCP connection',
    );
    return [];
  }
  const why =
    outsider === undefined
      ? 'no process had its other end'
      : `its other end was that of ${showHolder(outsider)}, which is not protected`;
  context.noteHolders(holders, `the connection to ${where} is reset: ${why}`);
  return askPeer;
}
