import { type InetSock, inetSock, showEndpoint } from '../../../../linux/inet.ts';
import { type Sock, sockStruct } from '../../../../linux/sock.ts';
import { sequenceDistance, type TcpSock, tcpSock } from '../../../../linux/tcp.ts';
import type { InetSocket } from '../../../../model/socket.ts';
import type { LateOption } from '../../../../model/socket-option.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { type Holder, showHolder } from '../../holders/holders.ts';
import { possibleLoss } from './tcp-connection.ts';
import { Connections, endsOf } from './tcp-ends.ts';
import type { TcpEnd } from './tcp-moving.ts';
import { disagree, sentTo } from './tcp-queue.ts';
import { areApart } from './tcp-sandbox.ts';
import { readAtWork } from './tcp-work.ts';

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
 * What one end waits for, the other one has to have sent and to keep still; otherwise both would wait for
 * ever.
 *
 * @param sent up to where the first one may have sent
 */
export function fits(
  { snd_una }: Pick<TcpSock, 'snd_una'>,
  sent: number,
  { rcv_nxt }: Pick<TcpSock, 'rcv_nxt'>,
): boolean {
  return sequenceDistance(snd_una, rcv_nxt) >= 0 && sequenceDistance(rcv_nxt, sent) >= 0;
}

/**
 * Throws a FileRefusal if what the two ends of a connection count does not fit. Both have been read as they
 * are, and no work on them explains it: it is no loss.
 */
function checkPair(kernel: Kernel, one: bigint, other: bigint): void {
  const endAt = (at: bigint): TcpEnd => ({
    sock: kernel.bind(sockStruct).at(at),
    tcp: kernel.bind(tcpSock).at(at),
  });
  const [from, to] = [endAt(one), endAt(other)];
  const fit = ({ sock, tcp }: TcpEnd, peer: TcpEnd): boolean =>
    fits(tcp, sentTo(kernel, sock, tcp), peer.tcp);
  readAtWork(kernel, [from, to], 'refused', () => {
    if (!fit(from, to) || !fit(to, from)) disagree('its two ends do not fit each other');
  });
}

/** Whether another socket has the ends of a connection that has ended, and has given them back. */
export function isTakenOver(context: CaptureContext, sock: Sock, inet: InetSock): boolean {
  return context.of(Connections).isTaken(endsOf(sock, inet));
}

/** Who allows that a connection is lost. */
export interface Consent {
  /** All who have it. */
  readonly isOwn: boolean;
  /** Who has its other end, which is lost with it, and does not. */
  readonly against: Holder | undefined;
}

/** Whether a connection may be lost: by all who have it, and by who has its other end. */
export function consentTo(context: CaptureContext, sock: Sock, inet: InetSock): Consent {
  const { system } = context;
  const peer = context.of(Connections).peerOf(endsOf(sock, inet));
  const own = system.holdersOfObject(sock.address);
  const others = (peer === undefined ? [] : system.holdersOfObject(peer.socket)).filter(
    ({ isProtected, pid }) => isProtected && own.every((one) => one.pid !== pid),
  );
  return {
    isOwn: context.mayLose(own, 'connections'),
    against: others.find((one) => !context.mayLose([one], 'connections')),
  };
}

/** Whether the end of a connection at an address does not come back though its process does. */
function isLost(context: CaptureContext, address: bigint): boolean {
  const { kernel } = context;
  const sock = kernel.bind(sockStruct).at(address);
  if (possibleLoss(context, sock, kernel.bind(tcpSock).at(address)) === undefined) return false;
  const { isOwn, against } = consentTo(context, sock, kernel.bind(inetSock).at(address));
  return isOwn && against === undefined;
}

/** What the other end of a connection makes of this one. */
export interface PeerFound {
  /** With these the socket hears that its peer is gone; none if it is there. */
  readonly options: readonly LateOption[];
  readonly apart?: InetSocket['apart'];
}

/**
 * Who is at the other end of a connection, if that is a process of the same machine: it has to come back with
 * this one, or, where one of them is in a sandbox, at its own time. If it does not, its end has gone with the
 * kernel, as if it had crashed.
 *
 * @param where the peer, for people
 * @throws FileRefusal if the numbers of the two ends do not fit
 */
export function connectPeer(context: CaptureContext, sock: Sock, inet: InetSock, where: string): PeerFound {
  const { system } = context;
  const ends = endsOf(sock, inet);
  const connections = context.of(Connections);
  const peer = connections.peerOf(ends);
  if (peer === undefined && !connections.isWithin(ends)) return { options: [] };
  const holders = system.holdersOfObject(sock.address);
  const others = peer === undefined ? [] : system.holdersOfObject(peer.socket);
  const isElsewhere = peer !== undefined && peer.network !== ends.network;
  const outsider = others.find(({ isProtected }) => isElsewhere || !isProtected);
  const isPeerLost = peer !== undefined && outsider === undefined && isLost(context, peer.socket);
  if (peer !== undefined && others.length > 0 && outsider === undefined && !isPeerLost) {
    checkPair(context.kernel, sock.address, peer.socket);
    const pids = [...holders, ...others].map(({ pid }) => pid);
    const [other] = others;
    if (other === undefined || !areApart(context, holders, others)) {
      context.join(pids, 'a TCP connection');
      return { options: [] };
    }
    context.depend(pids, 'a TCP connection');
    return { options: [], apart: { pid: other.pid, comm: other.comm } };
  }
  const which = isElsewhere ? 'in another network namespace' : 'which is not protected';
  const [holder] = others;
  const why =
    outsider !== undefined
      ? `its other end was that of ${showHolder(outsider)}, ${which}`
      : holder !== undefined
        ? `its other end, that of ${showHolder(holder)}, cannot be kept`
        : 'no process had its other end';
  context.loseForHolders(holders, {
    kind: 'connections',
    of: `${showEndpoint(ends.own.address, ends.own.port)} ${where}`,
    what: `the connection to ${where} is reset: ${why}`,
  });
  return { options: askPeer };
}
