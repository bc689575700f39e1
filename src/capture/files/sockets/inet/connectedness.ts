import { showEndpoint } from '../../../../linux/inet.ts';
import type { Sock } from '../../../../linux/sock.ts';
import { sequenceDistance, type TcpSock, tcpSock } from '../../../../linux/tcp.ts';
import {
  type InetSocket,
  type Shutdown,
  type SocketState,
  socketState,
  type TcpConnecting,
  type TcpConnection,
} from '../../../../model/socket.ts';
import type { LateOption } from '../../../../model/socket-option.ts';
import type { CaptureContext } from '../../context.ts';
import { FileRefusal, type PossibleLoss } from '../../refusal.ts';
import { connectionToBreak } from './tcp-connection.ts';
import { connectedStates, ending, peerEnded } from './tcp-states.ts';

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
  /** Set if it is begun anew. */
  readonly connecting: TcpConnecting | undefined;
  /** Set if it is reset before its process runs. */
  readonly broken: InetSocket['broken'];
  /** Set if its other end comes back at another time. */
  readonly apart?: InetSocket['apart'];
  /** Options with which a socket hears that its peer is gone. */
  readonly options: readonly LateOption[];
}

/** Of a socket that is neither connected nor bound. */
export function unconnected({ sourceAddress, destinationAddress }: Endpoints): Omit<Connectedness, 'state'> {
  const ends = {
    sourceAddress: new Uint8Array(sourceAddress.length),
    destinationAddress: new Uint8Array(destinationAddress.length),
    ...{ sourcePort: 0, destinationPort: 0 },
  };
  const none = { connection: undefined, connecting: undefined, broken: undefined };
  return { ends, shutdown: 0, ...none, options: [] };
}

/** CRIU leaves the option set on every connection. */
export function reusePort({ reuseport }: Sock): LateOption {
  return { name: 'SO_REUSEPORT', value: reuseport === 0 ? 0 : 1 };
}

/** SOCK_BINDADDR_LOCK | SOCK_BINDPORT_LOCK of sk_userlocks (include/net/sock.h). */
const BOUND = 4 | 8;

/** Whether bind(2) has chosen the address or the port of a socket. */
export function isBound({ sk_userlocks }: Pick<Sock, 'sk_userlocks'>): boolean {
  return (sk_userlocks & BOUND) !== 0;
}

/** What goes with a connection that is lost, after a comma each. */
function withIt(sock: Sock, tcp: TcpSock): string {
  const unread = sequenceDistance(tcp.copied_seq, tcp.rcv_nxt) - (peerEnded.has(sock.state) ? 1 : 0);
  const unsent = sequenceDistance(tcp.snd_una, tcp.write_seq) - (ending.has(sock.state) ? 1 : 0);
  const isConnected = connectedStates.has(sock.state);
  const hasFastOpen =
    tcp.fastOpenContext !== 0n || tcp.fastopen_connect !== 0 || tcp.fastopen_no_cookie !== 0;
  return [
    unread > 0 ? ', with what had come and was not read' : '',
    isConnected && unsent > 0 ? ', with what was written and its peer had not confirmed' : '',
    hasFastOpen ? ', with what was set for TCP_FASTOPEN' : '',
  ].join('');
}

/**
 * A connection that cannot be kept, as one that was reset. What had come and was not read goes with it: a
 * reset can overtake it. In a sandbox it goes with its own address. Whoever calls has made sure that no more
 * is lost.
 * @throws FileRefusal for one in a sandbox that a call would make again from where it is bound no more
 *
 * @param isOpening whether it was being made, and its process does not have it yet
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
  const holders = system.holdersOfObject(sock.address);
  const isSandboxed = context.isSandboxed(holders);
  if (isSandboxed && isOpening && isBound(sock))
    throw new FileRefusal(
      `is connecting by TCP to ${where} from a place of its choice, in a sandbox`,
      'passing',
    );
  const again = isOpening ? '; a connect that waits for it is made again' : '';
  context.loseForHolders(holders, {
    kind,
    of: `${showEndpoint(ends.sourceAddress, ends.sourcePort)} ${where}`,
    what: `the connection to ${where} is reset${withIt(sock, tcp)}: it is one ${why}${again}`,
  });
  const lost = { broken: isOpening ? 'connecting' : 'connected', options: [reusePort(sock)] } as const;
  // Its peer has been told already: nobody holds what it sends back.
  if (isSandboxed) return { ...unconnected(ends), state: socketState.close, ...lost };
  const connection = connectionToBreak(tcp);
  return { state: socketState.established, ends, shutdown: 0, connection, connecting: undefined, ...lost };
}
