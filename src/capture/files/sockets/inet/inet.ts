import type { File } from '../../../../linux/fs.ts';
import {
  type InetSock,
  inetFlag,
  inetSock,
  interfaceName,
  isScoped,
  networkPort,
  showEndpoint,
} from '../../../../linux/inet.ts';
import { type Ipv6Pinfo, ipv6PinfoOf, rxoptFlag } from '../../../../linux/ipv6.ts';
import { type Socket, socketConnected } from '../../../../linux/net.ts';
import { skbQueue } from '../../../../linux/skbuff.ts';
import { family as families, type Sock, tcpState } from '../../../../linux/sock.ts';
import { tcpSettings, tcpSock } from '../../../../linux/tcp.ts';
import { udpSock } from '../../../../linux/udp.ts';
import { type InetSocket, type Shutdown, type SocketState, socketState } from '../../../../model/socket.ts';
import type { LateOption } from '../../../../model/socket-option.ts';
import { isLoopbackAddress } from '../../../../system/ip-address.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { showHolder } from '../../holders/holders.ts';
import { FileRefusal } from '../../refusal.ts';
import { checkSocketCgroup } from '../socket-cgroup.ts';
import { lateSocketOptions, shutdownOf, socketIdentity, socketOptions } from '../socket-options.ts';
import {
  type Connectedness,
  type Endpoints,
  lostConnection,
  reusePort,
  unconnected,
} from './connectedness.ts';
import { ipOptions } from './ip-options.ts';
import { beingMadeLoss, checkBeingMade, checkUnread } from './tcp-beginning-and-end.ts';
import { tcpConnecting } from './tcp-connecting.ts';
import { tcpConnection } from './tcp-connection.ts';
import { connectPeer, consentTo } from './tcp-peer.ts';
import { connectedStates } from './tcp-states.ts';
import { tcpOptions, udpOptions } from './transport-options.ts';

const IPPROTO = { tcp: 6, udp: 17, udplite: 136, mptcp: 262 } as const;
const SOCK = { stream: 1, dgram: 2 } as const;

function endpoints(inet: InetSock, family: 2 | 10): Endpoints {
  const isSix = family === families.inet6;
  return {
    sourceAddress: isSix ? inet.saddr6 : inet.saddr,
    sourcePort: networkPort(inet.sourcePort),
    destinationAddress: isSix ? inet.daddr6 : inet.daddr,
    destinationPort: networkPort(inet.destinationPort),
  };
}

/**
 * The ends of a TCP socket that has no connection. One that had, or wanted, a connection still knows its
 * peer, and the port that it has given back (inet_put_port, net/ipv4/inet_hashtables.c): CRIU would connect
 * it again.
 */
export function withoutConnection(ends: Endpoints, inet: Pick<InetSock, 'inet_num'>): Endpoints {
  return {
    ...ends,
    sourcePort: inet.inet_num === 0 ? 0 : ends.sourcePort,
    destinationAddress: new Uint8Array(ends.destinationAddress.length),
    destinationPort: 0,
  };
}

const carriedStates: ReadonlySet<number> = new Set(Object.values(socketState));

function isCarried(state: number): state is SocketState {
  return carriedStates.has(state);
}

/** What a program has in the states in which the two ends have not found each other yet. */
const opening: Readonly<Record<number, string>> = {
  [tcpState.synReceived]: 'is being connected by TCP to',
};

/** States in which a connection is being made. */
const beingMade: ReadonlySet<number> = new Set([tcpState.synSent, tcpState.synReceived]);

/**
 * The state as an image has it: a socket that is connecting has no connection yet. Throws a FileRefusal for
 * connections that are being made by the other end, and for states that no open socket has.
 */
export function tcpStateOf(state: number, ends: Endpoints): SocketState {
  if (isCarried(state)) return state;
  if (state === tcpState.synSent) return socketState.close;
  const sentence = opening[state];
  if (sentence === undefined) throw FileRefusal.damaged(`has a TCP socket in the impossible state ${state}`);
  throw new FileRefusal(
    `${sentence} ${showEndpoint(ends.destinationAddress, ends.destinationPort)}`,
    undefined,
    beingMadeLoss,
  );
}

/**
 * What of a TCP socket without a connection is shut down. One that was closed by an error reads as one that
 * the peer has ended once it is shut down, without the error, and what came before would be taken for all.
 * Not shut down it says that it is not connected.
 */
export function tcpShutdown(
  sock: Pick<Sock, 'state' | 'sk_shutdown' | 'sk_err'>,
  socket: Pick<Socket, 'state'>,
): Shutdown {
  if (sock.state === tcpState.listen || sock.sk_err !== 0 || socket.state === socketConnected.connecting)
    return 0;
  return shutdownOf(sock);
}

/**
 * Throws a FileRefusal if a connection cannot be kept or begun anew, or has ended and not all of it was
 * read.
 */
function keptTcp(
  context: CaptureContext,
  socket: Socket,
  sock: Sock,
  inet: InetSock,
  ends: Endpoints,
): Connectedness {
  const { kernel } = context;
  if (sock.state === tcpState.synReceived) checkBeingMade(context, socket, sock, ends);
  const state = tcpStateOf(sock.state, ends);
  const where = showEndpoint(ends.destinationAddress, ends.destinationPort);
  const tcp = kernel.bind(tcpSock).at(sock.address);
  if (sock.state === tcpState.synSent) {
    const connecting = tcpConnecting(context, socket, sock, tcp, ends);
    return { ...unconnected(ends), state, connecting };
  }
  if (!connectedStates.has(state)) {
    checkUnread(context, sock, inet, ends);
    checkUnsent(kernel, sock, ends);
    const shutdown = tcpShutdown(sock, socket);
    return { ...unconnected(ends), state, ends: withoutConnection(ends, inet), shutdown };
  }
  const connection = tcpConnection(context, sock, tcp, where);
  const { options: gone, apart } = connectPeer(context, sock, inet, where);
  const none = { connecting: undefined, broken: undefined };
  const options = [reusePort(sock), ...gone];
  return { state, ends, shutdown: shutdownOf(sock), connection, ...none, apart, options };
}

/** A connection that can be kept, or that is lost where that is allowed. Throws a FileRefusal otherwise. */
function tcpConnectedness(...situation: Parameters<typeof keptTcp>): Connectedness {
  try {
    return keptTcp(...situation);
  } catch (error) {
    if (!(error instanceof FileRefusal) || error.loss === undefined) throw error;
    const [context, socket, sock, inet, ends] = situation;
    const { reason, moment, loss } = error;
    const { isOwn, against } = consentTo(context, sock, inet);
    if (against !== undefined)
      throw new FileRefusal(`${reason}; ${showHolder(against)}, at its other end, may not lose it`, moment);
    if (!isOwn) throw error;
    // A connect that is made again would clear the error, and find a stream that is at its end.
    if (!beingMade.has(sock.state) && socket.state === socketConnected.connecting)
      throw new FileRefusal(reason, moment);
    // The server of a TCP Fast Open may have accepted what is still being made.
    const isOpening = beingMade.has(sock.state) && socket.state === socketConnected.connecting;
    return lostConnection(context, sock, ends, loss, isOpening);
  }
}

function udpConnectedness(kernel: Kernel, sock: Sock, ends: Endpoints): Connectedness {
  checkUnsent(kernel, sock, ends);
  const state = sock.state === tcpState.established ? socketState.established : socketState.close;
  return { ...unconnected(ends), state, ends, shutdown: shutdownOf(sock) };
}

function checkUnsent(kernel: Kernel, sock: Sock, { sourceAddress, sourcePort }: Endpoints): void {
  if (skbQueue(kernel, sock.writeQueue).length > 0) {
    const where = showEndpoint(sourceAddress, sourcePort);
    throw new FileRefusal(`has a socket on ${where} with data that was not sent`);
  }
}

function noteQueues(context: CaptureContext, sock: Sock, isTcp: boolean, where: string): void {
  const holders = context.system.holdersOfObject(sock.address);
  const waiting = isTcp && sock.state === tcpState.listen ? sock.sk_ack_backlog : 0;
  if (waiting > 0) {
    context.noteHolders(holders, `${waiting} connections to ${where} that waited to be accepted are lost`);
  }
  const datagrams = isTcp ? 0 : unreadDatagrams(context.kernel, sock);
  if (datagrams > 0)
    context.noteHolders(holders, `${datagrams} datagrams to ${where} that were not read are lost`);
  const errors = skbQueue(context.kernel, sock.errorQueue).length;
  if (errors > 0) context.noteHolders(holders, `${errors} messages in the error queue of ${where} are lost`);
}

/** Datagrams wait in two queues: the second is the reader's own. */
function unreadDatagrams(kernel: Kernel, sock: Sock): number {
  const { reader_queue } = kernel.bind(udpSock).at(sock.address);
  return skbQueue(kernel, sock.receiveQueue).length + skbQueue(kernel, reader_queue).length;
}

function connectionOf(
  sock: Sock,
  inet: InetSock,
  { broken }: Connectedness,
): 'none' | 'has' | 'had' | 'lost' {
  if (broken !== undefined) return 'lost';
  if (connectedStates.has(sock.state)) return 'has';
  return networkPort(inet.destinationPort) === 0 ? 'none' : 'had';
}

/** Everything that is set on the socket once CRIU has made it; refuses what cannot be set again. */
function lateOptions(
  kernel: Kernel,
  socket: Socket,
  sock: Sock,
  inet: InetSock,
  isTcp: boolean,
  connectedness: Connectedness,
): LateOption[] {
  return [
    ...lateSocketOptions(kernel, socket, sock),
    ...ipOptions(kernel, sock, inet),
    ...(isTcp ? tcpOptions(kernel, sock, connectionOf(sock, inet, connectedness)) : udpOptions(kernel, sock)),
  ];
}

/** Whether a socket has joined multicast groups (IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP). */
function inMulticastGroups(inet: InetSock, six: Ipv6Pinfo | undefined): boolean {
  return inet.mc_list !== 0n || (six !== undefined && six.ipv6_mc_list !== 0n);
}

/** A socket that is neither of TCP nor of UDP, for people. */
export function otherSocket(type: number, protocol: number): string {
  return protocol === IPPROTO.mptcp
    ? 'a socket of MPTCP (IPPROTO_MPTCP)'
    : `an IP socket of type ${type} and protocol ${protocol}`;
}

/** A TCP or a UDP socket. Throws a FileRefusal for another protocol and for what cannot be carried. */
export function captureInet(context: CaptureContext, file: File, socket: Socket, sock: Sock): InetSocket {
  const { kernel } = context;
  const family = sock.family === families.inet6 ? 10 : 2;
  const protocol = sock.sk_protocol;
  const isTcp = sock.sk_type === SOCK.stream && protocol === IPPROTO.tcp;
  const isUdp = sock.sk_type === SOCK.dgram && (protocol === IPPROTO.udp || protocol === IPPROTO.udplite);
  if (!isTcp && !isUdp) throw new FileRefusal(`has ${otherSocket(sock.sk_type, protocol)}`);
  checkSocketCgroup(kernel, sock);
  const inet = kernel.bind(inetSock).at(sock.address);
  const before = endpoints(inet, family);
  const connectedness = isTcp
    ? tcpConnectedness(context, socket, sock, inet, before)
    : udpConnectedness(kernel, sock, before);
  const { state, ends, connection, connecting } = connectedness;
  const where = showEndpoint(before.sourceAddress, before.sourcePort);
  const six = ipv6PinfoOf(kernel, inet);
  if (inMulticastGroups(inet, six)) throw new FileRefusal(`has a socket on ${where} in multicast groups`);
  if (inetFlag(kernel, inet, 'transparent')) throw new FileRefusal(`has a transparent socket on ${where}`);
  checkNetwork(sock, ends, isUdp);
  noteQueues(context, sock, isTcp, where);
  const options = socketOptions(kernel, socket, sock);
  return {
    type: 'inet',
    ...context.common(file),
    ...socketIdentity(kernel, file),
    socketType: sock.sk_type,
    state,
    options,
    lateOptions: [...lateOptions(kernel, socket, sock, inet, isTcp, connectedness), ...connectedness.options],
    shutdown: connectedness.shutdown,
    family,
    protocol,
    ...ends,
    backlog: state === tcpState.listen ? sock.sk_max_ack_backlog : 0,
    v6only: sock.ipv6only !== 0,
    freebind: inetFlag(kernel, inet, 'freebind'),
    pktinfo: six === undefined ? inetFlag(kernel, inet, 'pktinfo') : rxoptFlag(six, 'rxinfo') === 1,
    tos: inet.tos,
    ttl: inet.uc_ttl < 0 ? 0 : inet.uc_ttl,
    interfaceName: scopeOf(context, sock, ends, family, where),
    tcp: isTcp ? tcpSettings(kernel, kernel.bind(tcpSock).at(sock.address)) : undefined,
    connection,
    connecting,
    broken: connectedness.broken,
    ...(connectedness.apart === undefined ? {} : { apart: connectedness.apart }),
  };
}

/** LOOPBACK_IFINDEX: the one interface that is up while processes are restored. */
const LOOPBACK = 1;

/** Processes are restored before the network is up: what needs it at once cannot come back. */
function checkNetwork(sock: Sock, ends: Endpoints, isUdp: boolean): void {
  const { destinationAddress, destinationPort } = ends;
  if (isUdp && destinationPort !== 0 && !isLoopbackAddress(destinationAddress)) {
    throw new FileRefusal(
      `has a UDP socket connected to ${showEndpoint(destinationAddress, destinationPort)}`,
    );
  }
  if (sock.boundInterface > LOOPBACK) throw new FileRefusal('has a socket bound to a network interface');
}

/** Interface of a link-local source address, without which it cannot be bound again. */
function scopeOf(
  context: CaptureContext,
  sock: Sock,
  { sourceAddress, sourcePort }: Endpoints,
  family: 2 | 10,
  where: string,
): string | undefined {
  if (family !== 10 || sourcePort === 0 || !isScoped(sourceAddress)) return undefined;
  const name = interfaceName(context.kernel, sock, sock.boundInterface);
  if (name === undefined) throw new FileRefusal(`has a socket on ${where}, whose interface is not known`);
  return name;
}
