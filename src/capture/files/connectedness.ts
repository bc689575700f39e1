import { showEndpoint } from '../../linux/inet.ts';
import type { Sock } from '../../linux/sock.ts';
import { sequenceDistance, tcpSock } from '../../linux/tcp.ts';
import {
  type InetSocket,
  type Shutdown,
  type SocketState,
  socketState,
  type TcpConnection,
} from '../../model/socket.ts';
import type { LateOption } from '../../model/socket-option.ts';
import type { CaptureContext } from './context.ts';
import type { PossibleLoss } from './refusal.ts';
import { connectionToBreak } from './tcp-connection.ts';

/** The two ends of an IP socket. */
export interface Endpoints {
  readonly sourceAddress: Uint8Array;
  readonly sourcePort: number;
  readonly destinationAddress: Uint8Array;
  readonly destinationPort: number;
}

/** What an image has of a socket's connection, or of its having none. */
export interface Connectedness {
  readonly state: SocketState;
  readonly ends: Endpoints;
  readonly shutdown: Shutdown;
  readonly connection: TcpConnection | undefined;
  /** Set if it is reset before its process runs. */
  readonly broken: InetSocket['broken'];
  /** Options with which a socket hears that its peer is gone. */
  readonly options: readonly LateOption[];
}

/** CRIU leaves the option set on every connection. */
export function reusePort({ reuseport }: Sock): LateOption {
  return { name: 'SO_REUSEPORT', value: reuseport === 0 ? 0 : 1 };
}

/**
 * A connection that cannot be kept, as one that was reset. What had come and was not read goes with it: a
 * reset can overtake it. Throws a FileRefusal if more would be lost.
 *
 * @param isOpening whether it was being made
 */
export function lostConnection(
  context: CaptureContext,
  sock: Sock,
  ends: Endpoints,
  { kind, why }: PossibleLoss,
  isOpening: boolean,
): Connectedness {
  const { kernel, system } = context;
  const tcp = kernel.bind(tcpSock).at(sock.address);
  const where = showEndpoint(ends.destinationAddress, ends.destinationPort);
  const unread =
    sequenceDistance(tcp.copied_seq, tcp.rcv_nxt) > 0 ? ', with what had come and was not read' : '';
  context.loseForHolders(system.holdersOfObject(sock.address), {
    kind,
    what: `the connection to ${where} is reset${unread}: it is one ${why}`,
  });
  return {
    ...{ state: socketState.established, ends, shutdown: 0 },
    connection: connectionToBreak(sock, tcp),
    broken: isOpening ? 'connecting' : 'connected',
    options: [reusePort(sock)],
  };
}
