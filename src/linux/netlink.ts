import type { Kernel } from '../vmcore/kernel.ts';
import { bool, flags, pointer, struct, u32, type ViewOf } from '../vmcore/view.ts';

/** `struct netlink_sock` (net/netlink/af_netlink.h). */
export const netlinkSock = struct('netlink_sock', {
  portid: u32,
  dst_portid: u32,
  dst_group: u32,
  ngroups: u32,
  groups: pointer,
  flags,
  cb_running: bool,
});

export type NetlinkSock = ViewOf<typeof netlinkSock>;

/** Bits of `netlink_sock.flags` that are options. */
export const NETLINK_F = {
  pktinfo: 1,
  broadcastError: 2,
  noEnobufs: 3,
  listenAllNsid: 4,
  capAck: 5,
  extAck: 6,
  strictCheck: 7,
} as const;

/** More multicast groups than any netlink family has. */
const MAX_GROUPS = 1 << 16;

/**
 * The bitmap of the multicast groups that a socket listens to, as 32-bit words; trailing zero words are left
 * out.
 */
export function netlinkGroups(kernel: Kernel, sock: NetlinkSock): number[] {
  const count = Math.min(sock.ngroups, MAX_GROUPS);
  if (sock.groups === 0n || count === 0) return [];
  const raw = kernel.memory.read(sock.groups, 8 * Math.ceil(count / 64));
  const words = Array.from({ length: raw.length / 4 }, (_, i) => raw.readUInt32LE(4 * i));
  while (words.at(-1) === 0) words.pop();
  return words;
}
