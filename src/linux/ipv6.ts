import type { Kernel } from '../vmcore/kernel.ts';
import {
  bytes,
  optional,
  pointer,
  s16,
  s32,
  struct,
  u8,
  u16,
  u32,
  uint,
  type ViewOf,
} from '../vmcore/view.ts';
import { bitOf, type InetSock } from './inet.ts';

/**
 * `struct ipv6_pinfo` (include/linux/ipv6.h). 6.6 to 6.8 moved its bit fields into `inet_flags` or made bytes
 * of them.
 */
export const ipv6Pinfo = struct('ipv6_pinfo', {
  rxopt: u16.at('rxopt.all'),
  hop_limit: s16,
  mcast_hops: uint,
  ucast_oif: s32,
  mcast_oif: s32,
  frag_size: u32,
  pmtudisc: uint,
  srcprefs: uint,
  min_hopcount: u8,
  tclass: u8,
  stickyPktinfo: bytes.at('sticky_pktinfo'),
  ipv6_mc_list: pointer,
  ipv6_ac_list: pointer,
  // a later 6.12 keeps it in the inet_sock
  ipv6_fl_list: optional(pointer),
  opt: pointer,
  recverr: optional(u8),
  recverr_rfc4884: optional(u8),
  sndflow: optional(u8),
  dontfrag: optional(u8),
  autoflowlabel: optional(u8),
  autoflowlabel_set: optional(u8),
  mc_loop: optional(u8),
  mc_all: optional(u8),
});

export type Ipv6Pinfo = ViewOf<typeof ipv6Pinfo>;

/** Bits of `rxopt.all`, the same in 6.1 and 6.12: what a receiver is told of each packet. */
export const rxopt = {
  srcrt: 0,
  osrcrt: 1,
  rxinfo: 2,
  rxoinfo: 3,
  rxhlim: 4,
  rxohlim: 5,
  hopopts: 6,
  ohopopts: 7,
  dstopts: 8,
  odstopts: 9,
  rxflow: 10,
  rxtclass: 11,
  rxpmtu: 12,
  rxorigdstaddr: 13,
  recvfragsize: 14,
} as const;

/** Bit fields of ipv6_pinfo, and the enumerators of the bits that they became. */
const ipv6Flags = {
  recverr: 'INET_FLAGS_RECVERR6',
  recverr_rfc4884: 'INET_FLAGS_RECVERR6_RFC4884',
  sndflow: 'INET_FLAGS_SNDFLOW',
  dontfrag: 'INET_FLAGS_DONTFRAG',
  autoflowlabel: 'INET_FLAGS_AUTOFLOWLABEL',
  autoflowlabel_set: 'INET_FLAGS_AUTOFLOWLABEL_SET',
  mc_loop: 'INET_FLAGS_MC6_LOOP',
  mc_all: 'INET_FLAGS_MC6_ALL',
} as const;

/** The IPv6 part of a socket; undefined for one of IPv4. */
export function ipv6PinfoOf(kernel: Kernel, sock: InetSock): Ipv6Pinfo | undefined {
  return sock.pinet6 === 0n ? undefined : kernel.bind(ipv6Pinfo).at(sock.pinet6);
}

/** An option of IPv6 that is one bit. */
export function ipv6Flag(
  kernel: Kernel,
  sock: InetSock,
  pinfo: Ipv6Pinfo,
  flag: keyof typeof ipv6Flags,
): 0 | 1 {
  const own = pinfo[flag];
  if (own !== undefined) return own === 1 ? 1 : 0;
  return sock.inet_flags?.has(kernel.enumerator(ipv6Flags[flag])) === true ? 1 : 0;
}

/** Whether a bit of `rxopt` is set. */
export function rxoptFlag(pinfo: Ipv6Pinfo, flag: keyof typeof rxopt): 0 | 1 {
  return bitOf(pinfo.rxopt, rxopt[flag]);
}
