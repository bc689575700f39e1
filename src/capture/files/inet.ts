import type { File } from '../../linux/file.ts';
import {
  type InetSock,
  inetFlag,
  inetSock,
  interfaceName,
  isScoped,
  networkPort,
  showEndpoint,
} from '../../linux/inet.ts';
import { type Ipv6Pinfo, ipv6PinfoOf, rxoptFlag } from '../../linux/ipv6.ts';
import { skbQueue } from '../../linux/skbuff.ts';
import { family as families, type Sock, type Socket, tcpState } from '../../linux/sock.ts';
import { tcpSettings, tcpSock } from '../../linux/tcp.ts';
import { udpSock } from '../../linux/udp.ts';
import type { InetSocket, SocketState } from '../../model/socket.ts';
import type { LateOption } from '../../model/socket-option.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import { ipOptions } from './ip-options.ts';
import { FileRefusal } from './refusal.ts';
import { lateSocketOptions, shutdownOf, socketIdentity, socketOptions } from './socket-options.ts';
import { tcpOptions, udpOptions } from './transport-options.ts';

const IPPROTO = { tcp: 6, udp: 17, udplite: 136 } as const;
const SOCK = { stream: 1, dgram: 2 } as const;

interface Endpoints {
  readonly sourceAddress: Uint8Array;
  readonly sourcePort: number;
  readonly destinationAddress: Uint8Array;
  readonly destinationPort: number;
}

function endpoints(inet: InetSock, family: 2 | 10): Endpoints {
  const isSix = family === families.inet6;
  return {
    sourceAddress: isSix ? inet.saddr6 : inet.saddr,
    sourcePort: networkPort(inet.sourcePort),
    destinationAddress: isSix ? inet.daddr6 : inet.daddr,
    destinationPort: networkPort(inet.destinationPort),
  };
}

/** The state as an image has it; refuses connections, which have to be kept on both sides. */
function tcpStateOf(sock: Sock, { destinationAddress, destinationPort }: Endpoints): SocketState {
  switch (sock.state) {
    case tcpState.listen:
      return 10;
    case tcpState.close:
      return 7;
    case tcpState.synSent:
      throw new FileRefusal(`is connecting by TCP to ${showEndpoint(destinationAddress, destinationPort)}`);
    default:
      throw new FileRefusal(
        `has an established TCP connection to ${showEndpoint(destinationAddress, destinationPort)}`,
      );
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

/** Everything that is set on the socket once CRIU has made it; refuses what cannot be set again. */
function lateOptions(
  kernel: Kernel,
  socket: Socket,
  sock: Sock,
  inet: InetSock,
  isTcp: boolean,
): LateOption[] {
  return [
    ...lateSocketOptions(kernel, socket, sock),
    ...ipOptions(kernel, sock, inet),
    ...(isTcp ? tcpOptions(kernel, sock) : udpOptions(kernel, sock)),
  ];
}

/** Whether a socket has joined multicast groups (IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP). */
function inMulticastGroups(inet: InetSock, six: Ipv6Pinfo | undefined): boolean {
  return inet.mc_list !== 0n || (six !== undefined && six.ipv6_mc_list !== 0n);
}

/**
 * A TCP socket that listens or is not connected, or a UDP socket. Throws a FileRefusal for an established connection, for
 * another protocol and for what cannot be carried.
 */
export function captureInet(context: CaptureContext, file: File, socket: Socket, sock: Sock): InetSocket {
  const { kernel } = context;
  const family = sock.family === families.inet6 ? 10 : 2;
  const protocol = sock.sk_protocol;
  const isTcp = sock.sk_type === SOCK.stream && protocol === IPPROTO.tcp;
  const isUdp = sock.sk_type === SOCK.dgram && (protocol === IPPROTO.udp || protocol === IPPROTO.udplite);
  if (!isTcp && !isUdp) {
    throw new FileRefusal(`has an IP socket of type ${sock.sk_type} and protocol ${protocol}`);
  }
  const inet = kernel.bind(inetSock).at(sock.address);
  const ends = endpoints(inet, family);
  const state = isTcp ? tcpStateOf(sock, ends) : sock.state === tcpState.established ? 1 : 7;
  const where = showEndpoint(ends.sourceAddress, ends.sourcePort);
  if (skbQueue(kernel, sock.writeQueue).length > 0) {
    throw new FileRefusal(`has a socket on ${where} with data that was not sent`);
  }
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
    lateOptions: lateOptions(kernel, socket, sock, inet, isTcp),
    shutdown: isTcp && state === tcpState.listen ? 0 : shutdownOf(sock),
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
  };
}

/** LOOPBACK_IFINDEX: the one interface that is up while processes are restored. */
const LOOPBACK = 1;

function isLoopback(address: Uint8Array): boolean {
  const [first] = address;
  return address.length === 4 ? first === 127 : address.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

/** Processes are restored before the network is up: what needs it at once cannot come back. */
function checkNetwork(sock: Sock, ends: Endpoints, isUdp: boolean): void {
  const { destinationAddress, destinationPort } = ends;
  if (isUdp && destinationPort !== 0 && !isLoopback(destinationAddress)) {
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
