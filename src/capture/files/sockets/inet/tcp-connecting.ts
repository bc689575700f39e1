import { isScoped, showEndpoint } from '../../../../linux/inet.ts';
import type { Socket } from '../../../../linux/net.ts';
import { rbTreeForEachEntry } from '../../../../linux/rbtree.ts';
import { skBuff, skbQueue } from '../../../../linux/skbuff.ts';
import { isAtWork, type Sock } from '../../../../linux/sock.ts';
import { sequenceDistance, type TcpSock } from '../../../../linux/tcp.ts';
import type { TcpConnecting } from '../../../../model/socket.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { FileRefusal, type PossibleLoss } from '../../refusal.ts';
import { type Endpoints, isBound } from './connectedness.ts';
import { beingMadeLoss, fastOpenRefusal, hasFastOpen } from './tcp-beginning-and-end.ts';
import { checkOwn, uncarried } from './tcp-connection.ts';
import { checkOpening } from './tcp-plausible.ts';
import { Disagreement } from './tcp-queue.ts';

/**
 * Whether the SYN is all that a socket has written. With TCP Fast Open, data goes with it (tcp_send_syn_data,
 * net/ipv4/tcp_output.c), of which the process has been told already.
 */
function hasData(kernel: Kernel, sock: Sock, { snd_una, write_seq }: TcpSock): boolean {
  const sent = [...rbTreeForEachEntry(kernel, sock.retransmitQueue, kernel.bind(skBuff), 'rbnode')];
  const buffers = [...sent, ...skbQueue(kernel, sock.writeQueue)];
  return sequenceDistance(snd_una, write_seq) !== 1 || buffers.some(({ len }) => len > 0);
}

/** What stands against a connection until it is made, after "is connecting by TCP to its peer". */
function passingProblem(sock: Sock, ends: Endpoints): string | undefined {
  if (isAtWork(sock)) return ', and a CPU or a system call was at it';
  if (sock.sk_err !== 0) return ', which has failed';
  if (isBound(sock)) return ' from an address or a port of its choice';
  if (sock.boundInterface !== 0) return ' through an interface of its choice (SO_BINDTODEVICE)';
  return isScoped(ends.destinationAddress) ? ', an address of one link' : undefined;
}

/**
 * Whether the socket is as one that is connecting has to be. Throws a {@link Disagreement} if it is not and
 * nobody was at it: then it is damaged. What somebody was at may be on its way into that state or out of it.
 */
function isPlainly(kernel: Kernel, socket: Socket, sock: Sock, tcp: TcpSock): boolean {
  try {
    checkOpening(kernel, socket, sock, tcp);
    return true;
  } catch (error) {
    if (error instanceof Disagreement && isAtWork(sock)) return false;
    throw error;
  }
}

/**
 * What a socket wants that has sent its SYN and has no answer yet (SYN_SENT). The connection is begun anew
 * from another port, and all goes on as if the first SYN had been lost: whoever waits for it goes on waiting.
 * If the peer has answered, it hears that this connection is not known any more.
 *
 * @param ends those of the connection, in network order
 * @throws FileRefusal if it cannot be begun anew in the same way; it can be lost if it could be tried again
 */
export function tcpConnecting(
  context: CaptureContext,
  socket: Socket,
  sock: Sock,
  tcp: TcpSock,
  ends: Endpoints,
): TcpConnecting {
  const { kernel } = context;
  const where = showEndpoint(ends.destinationAddress, ends.destinationPort);
  const refuse = (why: string, loss?: PossibleLoss): never => {
    throw new FileRefusal(`is connecting by TCP to ${where}${why}`, 'passing', loss);
  };
  checkOwn(kernel, sock, tcp);
  if (!isPlainly(kernel, socket, sock, tcp)) refuse(', and a CPU or a system call was changing it');
  const holders = context.system.holdersOfObject(sock.address);
  if (!holders.some(({ isProtected }) => isProtected)) refuse(', and has no descriptor for it any more');
  if (tcp.fastopen_connect !== 0 || tcp.fastopen_req !== 0n || hasData(kernel, sock, tcp))
    refuse(' with its first data (TCP Fast Open)');
  const passing = passingProblem(sock, ends);
  const lasting = uncarried(context, sock, tcp);
  const moment = lasting === undefined ? 'passing' : undefined;
  if ((passing ?? lasting) !== undefined && hasFastOpen(tcp)) throw fastOpenRefusal(where, moment);
  if (lasting !== undefined) throw new FileRefusal(`has a TCP connection ${lasting}`, moment, beingMadeLoss);
  if (passing !== undefined) refuse(passing, beingMadeLoss);
  context.noteHolders(
    holders,
    `the connection to ${where}, which was being made, is begun anew from another port`,
  );
  const { sourceAddress: source, destinationAddress: address, destinationPort: port } = ends;
  return { source, address, port };
}
