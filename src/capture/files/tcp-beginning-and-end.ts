import { type InetSock, showEndpoint } from '../../linux/inet.ts';
import type { Socket } from '../../linux/net.ts';
import { skbQueue } from '../../linux/skbuff.ts';
import { type Sock, tcpState } from '../../linux/sock.ts';
import { tcpSock } from '../../linux/tcp.ts';
import type { Endpoints } from './connectedness.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';
import { shutdownOf } from './socket-options.ts';
import { checkOwn } from './tcp-connection.ts';
import { isTakenOver } from './tcp-peer.ts';
import { checkOpening, socketPhase } from './tcp-plausible.ts';
import { disagree, receiveQueue } from './tcp-queue.ts';

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
  const { fastOpenContext, fastopen_req, fastopen_connect, fastopen_no_cookie } = tcp;
  const hasFastOpen =
    fastOpenContext !== 0n || fastopen_req !== 0n || fastopen_connect !== 0 || fastopen_no_cookie !== 0;
  if (!hasFastOpen || socket.state !== socketPhase.connecting) return;
  const peer = showEndpoint(ends.destinationAddress, ends.destinationPort);
  throw new FileRefusal(`has a TCP socket that uses TCP_FASTOPEN and is connecting to ${peer}`);
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
