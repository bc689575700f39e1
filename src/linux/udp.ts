import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, flags, s32, struct, u8, u16, type ViewOf } from '../vmcore/view.ts';

/** `struct udp_sock` (include/linux/udp.h). */
export const udpSock = struct('udp_sock', {
  udp_flags: flags,
  pending: s32,
  encap_type: u8,
  gso_size: u16,
  pcslen: u16,
  pcrlen: u16,
  /** Datagrams that a reader has already moved out of the socket's receive queue. */
  reader_queue: addressOf('reader_queue'),
});

export type UdpSock = ViewOf<typeof udpSock>;

/** Enumerators of the bits in `udp_flags`. */
const udpFlags = {
  cork: 'UDP_FLAGS_CORK',
  noCheck6Tx: 'UDP_FLAGS_NO_CHECK6_TX',
  noCheck6Rx: 'UDP_FLAGS_NO_CHECK6_RX',
  gro: 'UDP_FLAGS_GRO_ENABLED',
} as const;

/** An option of a UDP socket that is one bit. */
export function udpFlag(kernel: Kernel, udp: UdpSock, flag: keyof typeof udpFlags): 0 | 1 {
  return udp.udp_flags.has(kernel.enumerator(udpFlags[flag])) ? 1 : 0;
}
