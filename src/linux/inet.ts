import { unmapped } from '../system/ip-address.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { bytes, flags, optional, pointer, s16, s32, struct, u8, u16, type ViewOf } from '../vmcore/view.ts';
import { netStruct } from './net-namespace.ts';
import { netDeviceStruct } from './netdevice.ts';
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
  inet_flags: optional(flags),
  freebind: optional(u8),
  transparent: optional(u8),
  recverr: optional(u8),
  recverr_rfc4884: optional(u8),
  mc_loop: optional(u8),
  mc_all: optional(u8),
  bind_address_no_port: optional(u8),
  min_ttl: u8,
  mc_ttl: u8,
  pmtudisc: u8,
  uc_index: s32,
  mc_index: s32,
  // 6.3
  local_port_range: optional(bytes),
  inet_opt: pointer,
  ipv6_fl_list: optional(pointer),
  pinet6: pointer,
  mc_list: pointer,
});

export type InetSock = ViewOf<typeof inetSock>;

/**
 * Options that are one bit. The number in `inet_flags` is the kernel's own enumerator from 6.6 on; before
 * that they are bit fields, or the bit of `cmsg_flags` that is given here (IP_CMSG_* of
 * include/net/inet_sock.h).
 */
const inetFlags = {
  pktinfo: ['INET_FLAGS_PKTINFO', 0],
  ttl: ['INET_FLAGS_TTL', 1],
  tos: ['INET_FLAGS_TOS', 2],
  recvopts: ['INET_FLAGS_RECVOPTS', 3],
  retopts: ['INET_FLAGS_RETOPTS', 4],
  passsec: ['INET_FLAGS_PASSSEC', 5],
  origdstaddr: ['INET_FLAGS_ORIGDSTADDR', 6],
  checksum: ['INET_FLAGS_CHECKSUM', 7],
  recvfragsize: ['INET_FLAGS_RECVFRAGSIZE', 8],
  recverr: ['INET_FLAGS_RECVERR', 'recverr'],
  recverrRfc4884: ['INET_FLAGS_RECVERR_RFC4884', 'recverr_rfc4884'],
  freebind: ['INET_FLAGS_FREEBIND', 'freebind'],
  transparent: ['INET_FLAGS_TRANSPARENT', 'transparent'],
  mcLoop: ['INET_FLAGS_MC_LOOP', 'mc_loop'],
  mcAll: ['INET_FLAGS_MC_ALL', 'mc_all'],
  bindAddressNoPort: ['INET_FLAGS_BIND_ADDRESS_NO_PORT', 'bind_address_no_port'],
} as const;

export type InetFlag = keyof typeof inetFlags;

/** Bit `number` of a word of at most 32 bits. */
export function bitOf(word: number, number: number): 0 | 1 {
  return ((word >>> number) & 1) === 1 ? 1 : 0;
}

/** An option of an IP socket that is one bit. */
export function inetFlag(kernel: Kernel, sock: InetSock, flag: InetFlag): boolean {
  const [enumerator, before] = inetFlags[flag];
  if (sock.inet_flags !== undefined) return sock.inet_flags.has(kernel.enumerator(enumerator));
  if (typeof before === 'number') return bitOf(sock.cmsg_flags ?? 0, before) === 1;
  return sock[before] === 1;
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

/** `10.0.2.2:5432` or `[::1]:5432`; an IPv4 address inside an IPv6 one is shown as what it is. */
export function showEndpoint(address: Uint8Array, port: number): string {
  const four = unmapped(address);
  return four.length === 4 ? `${four.join('.')}:${port}` : `[${showIpv6(address)}]:${port}`;
}

/**
 * The text of an IPv6 address that RFC 5952 recommends: lower case, the first longest run of zero groups as
 * `::`.
 */
export function showIpv6(address: Uint8Array): string {
  const groups = Array.from(
    { length: 8 },
    (_, i) => ((address[2 * i] ?? 0) << 8) | (address[2 * i + 1] ?? 0),
  );
  const zerosFrom = groups.map((_, i) => {
    const end = groups.findIndex((group, at) => at >= i && group !== 0);
    return (end === -1 ? groups.length : end) - i;
  });
  const longest = Math.max(...zerosFrom);
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (longest < 2) return hex(groups);
  const start = zerosFrom.indexOf(longest);
  return `${hex(groups.slice(0, start))}::${hex(groups.slice(start + longest))}`;
}

/** IFNAMSIZ. */
const IFNAMSIZ = 16;
/** More interfaces than a machine has. */
const MAX_INTERFACES = 65536;

/** The name of an interface of a socket's network namespace; undefined if there is none with the index. */
export function interfaceName(kernel: Kernel, sock: Sock, index: number): string | undefined {
  const Device = kernel.bind(netDeviceStruct);
  const head = kernel.bind(netStruct).at(sock.net).dev_base_head;
  let at = kernel.memory.u64(head);
  for (let i = 0; i < MAX_INTERFACES && at !== head; i++) {
    const device = Device.containerOf(at, 'dev_list');
    if (device.ifindex === index) return kernel.memory.cstring(device.name, IFNAMSIZ);
    at = kernel.memory.u64(at);
  }
  return undefined;
}
