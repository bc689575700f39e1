import type { Kernel } from '../vmcore/kernel.ts';
import { cstring, optional, pointer, s32, struct, u8, u16, u32, uint, type ViewOf } from '../vmcore/view.ts';
import { ticksPerSecond } from './jiffies.ts';

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
