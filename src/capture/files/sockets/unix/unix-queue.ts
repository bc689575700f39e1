import { type SkBuff, skbData, skbQueue } from '../../../../linux/skbuff.ts';
import { family, type Sock, sockStruct } from '../../../../linux/sock.ts';
import { unixControl, unixName, unixSock } from '../../../../linux/unix.ts';
import type { SocketPacket } from '../../../../model/socket.ts';
import { SOCK_DGRAM, SOCK_STREAM } from '../../../../system/abi.ts';
import { readable } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { FileRefusal } from '../../refusal.ts';

/** Bytes that wait in the receive queue of a socket. */
export function unreadBytes(kernel: Kernel, sock: Sock): number {
  const isStream = sock.sk_type === SOCK_STREAM;
  return skbQueue(kernel, sock.receiveQueue).reduce(
    (sum, skb) => sum + skb.len - (isStream ? unixControl(kernel, skb).consumed : 0),
    0,
  );
}

/**
 * What waits in the receive queue of a unix socket. Throws a FileRefusal for what an image cannot say of it.
 */
export function unixQueue(context: CaptureContext, sock: Sock): SocketPacket[] {
  const { kernel } = context;
  const isStream = sock.sk_type === SOCK_STREAM;
  const buffers = skbQueue(kernel, sock.receiveQueue);
  if (sock.sk_type === SOCK_DGRAM && buffers.length > 0) checkSenders(context, sock, buffers);
  return buffers.flatMap((skb): SocketPacket[] => {
    const { consumed, files } = unixControl(kernel, skb);
    if (files.length > 0) {
      throw new FileRefusal(`has a unix socket with ${files.length} open files on their way (SCM_RIGHTS)`);
    }
    const skip = isStream ? consumed : 0;
    const bytes = skb.len - skip;
    return bytes === 0 && isStream ? [] : [{ data: skbData(kernel, skb, skip), bytes }];
  });
}

/**
 * Whether messages would be reported as sent by who sent them (recvfrom(2)). CRIU sends all messages to a
 * socket through one: the first that is connected to it, or a new one without a name (add_fake_queuer,
 * criu/sk-unix.c).
 *
 * @param senders names of those who sent them
 * @param connected names of the sockets that are connected to the socket
 */
export function keepsSenders(senders: readonly string[], connected: readonly string[]): boolean {
  const used = connected.length === 0 ? [''] : connected;
  return new Set([...senders, ...used]).size === 1;
}

/** Unix sockets by the one that they are connected to. One that is damaged does not come back. */
export class Connected {
  readonly byPeer: ReadonlyMap<bigint, readonly bigint[]>;

  constructor({ kernel, system }: CaptureContext) {
    const peerOf = (address: bigint): bigint =>
      kernel.bind(sockStruct).at(address).family === family.unix
        ? kernel.bind(unixSock).at(address).peer
        : 0n;
    this.byPeer = Map.groupBy(system.objectsOf('socket'), (address) => readable(() => peerOf(address)) ?? 0n);
  }
}

function checkSenders(context: CaptureContext, sock: Sock, buffers: readonly SkBuff[]): void {
  const { kernel } = context;
  const nameOf = (address: bigint): string =>
    Buffer.from(unixName(kernel, kernel.bind(unixSock).at(address))).toString('latin1');
  const senders = buffers.map(({ sk }) => (sk === 0n ? '' : nameOf(sk)));
  const connected = context.of(Connected).byPeer.get(sock.address) ?? [];
  if (!keepsSenders(senders, connected.map(nameOf))) {
    throw new FileRefusal('has a unix socket with messages that would be reported as sent by another socket');
  }
}
