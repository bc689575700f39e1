import { type InetSock, showEndpoint } from '../../../../linux/inet.ts';
import { type Socket, socketConnected } from '../../../../linux/net.ts';
import { skbQueue } from '../../../../linux/skbuff.ts';
import { type Sock, tcpState } from '../../../../linux/sock.ts';
import { type TcpSock, tcpSock } from '../../../../linux/tcp.ts';
import type { Moment } from '../../../../model/verdict.ts';
import type { CaptureContext } from '../../context.ts';
import { FileRefusal, type PossibleLoss } from '../../refusal.ts';
import { shutdownOf } from '../socket-options.ts';
import type { Endpoints } from './connectedness.ts';
import { checkOwn } from './tcp-connection.ts';
import { isTakenOver } from './tcp-peer.ts';
import { checkOpening } from './tcp-plausible.ts';
import { disagree, receiveQueue } from './tcp-queue.ts';

/** Of a connection that is being made, and can be lost. */
export const beingMadeLoss: PossibleLoss = { kind: 'connections', why: 'that was being made' };

/** Whether something was set for TCP_FASTOPEN that a connection which is made again would not have. */
export function hasFastOpen(tcp: TcpSock): boolean {
  const { fastOpenContext, fastopen_req, fastopen_connect, fastopen_no_cookie } = tcp;
  return fastOpenContext !== 0n || fastopen_req !== 0n || fastopen_connect !== 0 || fastopen_no_cookie !== 0;
}

/** Of a connection that is being made with TCP_FASTOPEN: made again, it would not be as was asked for. */
export function fastOpenRefusal(where: string, moment?: Moment): FileRefusal {
  return new FileRefusal(`has a TCP socket that uses TCP_FASTOPEN and is connecting to ${where}`, moment);
}

/**
 * A connection that is being made could be lost, but is made again then: what it was to be made with has to
 * be there still. Throws a FileRefusal.
 */
export function checkBeingMade(
  { kernel }: CaptureContext,
  socket: Socket,
  sock: Sock,
  ends: Endpoints,
): void {
  const tcp = kernel.bind(tcpSock).at(sock.address);
  checkOwn(kernel, sock, tcp);
  checkOpening(kernel, socket, sock, tcp);
  if (!hasFastOpen(tcp) || socket.state !== socketConnected.connecting) return;
  throw fastOpenRefusal(showEndpoint(ends.destinationAddress, ends.destinationPort));
}

/** What came before the end of a connection and was not read is in no image. */
export function checkUnread(context: CaptureContext, sock: Sock, inet: InetSock, ends: Endpoints): void {
  const { kernel } = context;
  const bytes = skbQueue(kernel, sock.receiveQueue).reduce((sum, { len }) => sum + len, 0);
  if (sock.state !== tcpState.close || bytes === 0) return;
  const tcp = kernel.bind(tcpSock).at(sock.address);
  checkOwn(kernel, sock, tcp);
  receiveQueue(kernel, sock, tcp);
  // An end shuts down both directions (tcp_done, net/ipv4/tcp.c).
  if (shutdownOf(sock) !== 3) disagree('it has ended, and is not shut down');
  const peer = showEndpoint(ends.destinationAddress, ends.destinationPort);
  const reason = `has data from a TCP connection to ${peer} that has ended, and has not read it`;
  if (isTakenOver(context, sock, inet))
    throw new FileRefusal(`${reason}; another socket has the same addresses`);
  throw new FileRefusal(reason, undefined, {
    kind: 'connections',
    why: 'that has ended before all was read',
  });
}
