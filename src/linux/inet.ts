import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  bytes,
  optional,
  pointer,
  s16,
  s32,
  struct,
  u8,
  u16,
  u32,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';
import { ticksPerSecond } from './jiffies.ts';
import type { Sock } from './sock.ts';

/**
 * `struct inet_sock` (include/net/inet_sock.h). 6.6 turned the bit fields into bits of `inet_flags`.
 */
export const inetSock = struct('inet_sock', {
  daddr: bytes.at('sk.__sk_common.skc_daddr'),
  saddr6: bytes.at('sk.__sk_common.skc_v6_rcv_saddr'),
  daddr6: bytes.at('sk.__sk_common.skc_v6_daddr'),
  saddr: bytes.at('inet_saddr'),
  destinationPort: bytes.at('sk.__sk_common.skc_dport'),
  inet_num: u16.at('sk.__sk_common.skc_num'),
  sourcePort: bytes.at('inet_sport'),
  uc_ttl: s16,
  tos: u8,
  cmsg_flags: optional(u16),
  inet_flags: optional(ulongNumber),
  freebind: optional(u8),
  transparent: optional(u8),
  hdrincl: optional(u8),
  pinet6: pointer,
  mc_list: pointer,
});

export type InetSock = ViewOf<typeof inetSock>;

/** Numbers of the bits in `inet_flags` are enumerators of the kernel from 6.6 on. */
const inetFlags = {
  freebind: 'INET_FLAGS_FREEBIND',
  pktinfo: 'INET_FLAGS_PKTINFO',
  transparent: 'INET_FLAGS_TRANSPARENT',
};

/** IP_CMSG_PKTINFO (include/net/inet_sock.h), in `cmsg_flags` before 6.6. */
const IP_CMSG_PKTINFO = 1;

/** An option of an IP socket that is one bit. */
export function inetFlag(kernel: Kernel, sock: InetSock, flag: keyof typeof inetFlags): boolean {
  if (sock.inet_flags !== undefined) {
    return Math.floor(sock.inet_flags / 2 ** kernel.enumerator(inetFlags[flag])) % 2 === 1;
  }
  if (flag === 'pktinfo') return ((sock.cmsg_flags ?? 0) & IP_CMSG_PKTINFO) !== 0;
  return (flag === 'freebind' ? sock.freebind : sock.transparent) === 1;
}

const ipv6Pinfo = struct('ipv6_pinfo', {
  rxinfo: u8.at('rxopt.bits.rxinfo'),
  ipv6_mc_list: pointer,
});

/** IPV6_RECVPKTINFO. */
export function recvPktinfo6(kernel: Kernel, sock: InetSock): boolean {
  return sock.pinet6 !== 0n && kernel.bind(ipv6Pinfo).at(sock.pinet6).rxinfo === 1;
}

/** Whether a socket has joined multicast groups (IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP). */
export function inMulticastGroups(kernel: Kernel, sock: InetSock): boolean {
  if (sock.mc_list !== 0n) return true;
  return sock.pinet6 !== 0n && kernel.bind(ipv6Pinfo).at(sock.pinet6).ipv6_mc_list !== 0n;
}

const tcpSock = struct('tcp_sock', {
  nonagle: u8,
  repair: u8,
  keepalive_time: u32,
  keepalive_intvl: u32,
  keepalive_probes: u8,
});

/** Bits of tcp_sock.nonagle (include/net/tcp.h). */
const TCP_NAGLE_OFF = 1;
const TCP_NAGLE_CORK = 2;

export interface TcpSettings {
  readonly cork: boolean;
  readonly nodelay: boolean;
  /** undefined: the system's default. */
  readonly keepCount: number | undefined;
  readonly keepIdleSeconds: number | undefined;
  readonly keepIntervalSeconds: number | undefined;
}

/** The options of SOL_TCP that an unconnected or listening socket hands on. */
export function tcpSettings(kernel: Kernel, sock: bigint): TcpSettings {
  const tcp = kernel.bind(tcpSock).at(sock);
  const hz = ticksPerSecond(kernel);
  const seconds = (jiffies: number) => (jiffies === 0 ? undefined : Math.round(jiffies / hz));
  return {
    cork: (tcp.nonagle & TCP_NAGLE_CORK) !== 0,
    nodelay: (tcp.nonagle & TCP_NAGLE_OFF) !== 0,
    keepCount: tcp.keepalive_probes === 0 ? undefined : tcp.keepalive_probes,
    keepIdleSeconds: seconds(tcp.keepalive_time),
    keepIntervalSeconds: seconds(tcp.keepalive_intvl),
  };
}

/** A port of two bytes in network order. */
export function networkPort(raw: Buffer): number {
  return raw.readUInt16BE(0);
}

/** Whether a `sock` is an IPv6 one with a link-local or otherwise scoped address. */
export function isScoped(address: Uint8Array): boolean {
  const [first = 0, second = 0] = address;
  return (first === 0xfe && (second & 0xc0) === 0x80) || (first === 0xff && (second & 0x0f) <= 2);
}

/** `10.0.2.2:5432` or `[::1]:5432`. */
export function showEndpoint(address: Uint8Array, port: number): string {
  if (address.length === 4) return `${address.join('.')}:${port}`;
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16),
  );
  const text = groups.join(':').replace(/(^|:)(0:)+0($|:)|(^|:)0:(0:)+/, '::');
  return `[${text.replace(/:{3,}/, '::')}]:${port}`;
}

const netDevice = struct('net_device', {
  ifindex: s32,
  name: addressOf('name'),
  dev_list: addressOf('dev_list'),
});
const netNamespace = struct('net', { dev_base_head: addressOf('dev_base_head') });

/** IFNAMSIZ. */
const IFNAMSIZ = 16;
/** More interfaces than a machine has. */
const MAX_INTERFACES = 65536;

/** The name of an interface of a socket's network namespace; undefined if there is none with the index. */
export function interfaceName(kernel: Kernel, sock: Sock, index: number): string | undefined {
  const Device = kernel.bind(netDevice);
  const head = kernel.bind(netNamespace).at(sock.net).dev_base_head;
  let at = kernel.memory.u64(head);
  for (let i = 0; i < MAX_INTERFACES && at !== head; i++) {
    const device = Device.containerOf(at, 'dev_list');
    if (device.ifindex === index) return kernel.memory.cstring(device.name, IFNAMSIZ);
    at = kernel.memory.u64(at);
  }
  return undefined;
}
