import { isScoped } from '../../linux/inet.ts';
import { rbTreeForEachEntry } from '../../linux/rbtree.ts';
import { skBuff, skbQueue } from '../../linux/skbuff.ts';
import { isAtWork, type Sock } from '../../linux/sock.ts';
import { sequenceDistance, type TcpSock } from '../../linux/tcp.ts';
import type { TcpConnecting } from '../../model/socket.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';
import { checkCarried } from './tcp-connection.ts';

/** SOCK_BINDADDR_LOCK | SOCK_BINDPORT_LOCK of sk_userlocks (include/net/sock.h): bind(2) has chosen. */
const BOUND = 4 | 8;

/**
 * Whether the SYN is all that a socket has written. With TCP Fast Open, data goes with it (tcp_send_syn_data,
 * net/ipv4/tcp_output.c), of which the process has been told already.
 */
function hasData(kernel: Kernel, sock: Sock, { snd_una, write_seq }: TcpSock): boolean {
  const sent = [...rbTreeForEachEntry(kernel, sock.retransmitQueue, kernel.bind(skBuff), 'rbnode')];
  const buffers = [...sent, ...skbQueue(kernel, sock.writeQueue)];
  return sequenceDistance(snd_una, write_seq) !== 1 || buffers.some(({ len }) => len > 0);
}

/**
 * What a socket wants that has sent its SYN and has no answer yet (SYN_SENT). The connection is begun anew
 * from another port, and all goes on as if the first SYN had been lost: whoever waits for it goes on waiting.
 * If the peer has answered, it hears that this connection is not known any more.
 *
 * @param ends those of the connection, in network order
 * @param where the peer, for people
 * @throws FileRefusal if it cannot be begun anew in the same way
 */
export function tcpConnecting(
  context: CaptureContext,
  sock: Sock,
  tcp: TcpSock,
  ends: {
    readonly sourceAddress: Uint8Array;
    readonly destinationAddress: Uint8Array;
    readonly destinationPort: number;
  },
  where: string,
): TcpConnecting {
  const refuse = (why: string): never => {
    throw new FileRefusal(`is connecting by TCP to ${where}${why}`, 'passing');
  };
  if (isAtWork(sock)) refuse(', and a CPU or a system call was at it');
  if (sock.sk_err !== 0) refuse(', which has failed');
  if ((sock.sk_userlocks & BOUND) !== 0) refuse(' from an address or a port of its choice');
  if (sock.boundInterface !== 0) refuse(' through an interface of its choice (SO_BINDTODEVICE)');
  if (tcp.fastopen_connect !== 0 || hasData(context.kernel, sock, tcp))
    refuse(' with its first data (TCP Fast Open)');
  if (isScoped(ends.destinationAddress)) refuse(', an address of one link');
  checkCarried(sock, tcp);
  const holders = context.system.holdersOfObject(sock.address);
  if (!holders.some(({ isProtected }) => isProtected)) refuse(', and has no descriptor for it any more');
  context.noteHolders(
    holders,
    `the connection to ${where}, which was being made, is begun anew from another port`,
  );
  const { sourceAddress: source, destinationAddress: address, destinationPort: port } = ends;
  return { source, address, port };
}
