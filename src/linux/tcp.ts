import type { Kernel } from '../vmcore/kernel.ts';
import {
  cstring,
  optional,
  pointer,
  s32,
  struct,
  u8,
  u16,
  u32,
  u64,
  uint,
  type ViewOf,
} from '../vmcore/view.ts';
import { ticksPerSecond } from './jiffies.ts';
import type { SkBuff } from './skbuff.ts';

/** `struct tcp_sock` (include/linux/tcp.h) with the `inet_connection_sock` that it starts with. */
export const tcpSock = struct('tcp_sock', {
  nonagle: u8,
  repair: u8,
  keepalive_time: u32,
  keepalive_intvl: u32,
  keepalive_probes: u8,
  linger2: s32,
  window_clamp: u32,
  notsent_lowat: u32,
  save_syn: u8,
  thin_lto: u8,
  recvmsg_inq: u8,
  fastopen_connect: u8,
  fastopen_no_cookie: u8,
  tcp_tx_delay: u32,
  userMss: u16.at('rx_opt.user_mss'),
  copied_seq: u32,
  rcv_nxt: u32,
  rcv_wup: u32,
  rcv_wnd: u32,
  snd_una: u32,
  snd_nxt: u32,
  write_seq: u32,
  snd_up: u32,
  snd_wl1: u32,
  snd_wnd: u32,
  max_window: u32,
  urg_data: u16,
  ecn_flags: u8,
  tsoffset: u32,
  /** Nanoseconds of CLOCK_MONOTONIC: when it was last read for the socket, and when the last segment went. */
  tcp_clock_cache: u64,
  tcp_wstamp_ns: u64,
  // 6.7
  tcp_usec_ts: optional(u8),
  mssClamp: u16.at('rx_opt.mss_clamp'),
  hasTimestamps: u8.at('rx_opt.tstamp_ok'),
  hasSack: u8.at('rx_opt.sack_ok'),
  hasScale: u8.at('rx_opt.wscale_ok'),
  sendScale: u8.at('rx_opt.snd_wscale'),
  receiveScale: u8.at('rx_opt.rcv_wscale'),
  is_mptcp: optional(u8),
  fastopen_rsk: pointer,
  fastopen_req: pointer,
  saved_syn: pointer,
  md5sig: optional(pointer.at('md5sig_info')),
  // 6.7
  ao: optional(pointer.at('ao_info')),
  synRetries: u8.at('inet_conn.icsk_syn_retries'),
  userTimeout: uint.at('inet_conn.icsk_user_timeout'),
  deferAccept: u8.at('inet_conn.icsk_accept_queue.rskq_defer_accept'),
  fastOpenQueue: s32.at('inet_conn.icsk_accept_queue.fastopenq.max_qlen'),
  fastOpenContext: pointer.at('inet_conn.icsk_accept_queue.fastopenq.ctx'),
  congestionChosen: u8.at('inet_conn.icsk_ca_setsockopt'),
  congestion: pointer.at('inet_conn.icsk_ca_ops'),
  upperProtocol: pointer.at('inet_conn.icsk_ulp_ops'),
});

export type TcpSock = ViewOf<typeof tcpSock>;

export const congestionOps = struct('tcp_congestion_ops', { name: cstring });

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

/**
 * The options of SOL_TCP that an unconnected or listening socket hands on, as far as CRIU 4 restores them.
 */
export function tcpSettings(kernel: Kernel, tcp: TcpSock): TcpSettings {
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

/** The congestion control that a socket asked for by TCP_CONGESTION; undefined for the system's own. */
export function congestionOf(kernel: Kernel, tcp: TcpSock): string | undefined {
  return tcp.congestionChosen === 0 ? undefined : kernel.bind(congestionOps).at(tcp.congestion).name;
}

/** TCP_TIMEOUT_INIT and TCP_RTO_MAX in seconds. */
const FIRST_TIMEOUT = 1;
const LONGEST_TIMEOUT = 120;

/**
 * Seconds of TCP_DEFER_ACCEPT; the kernel keeps how many times a SYN-ACK is sent in them (retrans_to_secs in
 * net/ipv4/tcp.c).
 */
export function deferAcceptSeconds(retransmits: number): number {
  let timeout = FIRST_TIMEOUT;
  let period = 0;
  for (let i = 0; i < retransmits; i++) {
    period += timeout;
    timeout = Math.min(timeout * 2, LONGEST_TIMEOUT);
  }
  return period;
}

/** TCP_ECN_OK of `ecn_flags` (include/net/tcp.h). */
export const TCP_ECN_OK = 1;

/**
 * From one sequence number to another, in bytes: below 0 if the second one comes first (before(),
 * include/net/tcp.h).
 */
export function sequenceDistance(from: number, to: number): number {
  return (to - from) | 0;
}

/** A sequence number `bytes` further on. */
export function sequenceAfter(sequence: number, bytes: number): number {
  return (sequence + bytes) >>> 0;
}

/**
 * The sequence number of a buffer's first byte, and the one behind its last byte, a FIN counted. They are the
 * first two members of `struct tcp_skb_cb` (include/net/tcp.h), which lies in `skb->cb`.
 */
export function skbSequence(kernel: Kernel, skb: SkBuff): { seq: number; end_seq: number } {
  return { seq: kernel.memory.u32(skb.cb), end_seq: kernel.memory.u32(skb.cb + 4n) };
}
