import { ticksPerSecond } from '../../../../linux/jiffies.ts';
import type { Sock } from '../../../../linux/sock.ts';
import {
  congestionOf,
  deferAcceptSeconds,
  type TcpSock,
  tcpSettings,
  tcpSock,
} from '../../../../linux/tcp.ts';
import { udpFlag, udpSock } from '../../../../linux/udp.ts';
import { changedOptions, type LateOption } from '../../../../model/socket-option.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { FileRefusal } from '../../refusal.ts';

/** -1 as an int of setsockopt(2): the numbers of the model have no sign. */
const MINUS_ONE = 0xffff_ffff;

/**
 * What of a TCP socket is inside the kernel alone and goes into every byte: without it the socket would send
 * and take what nobody has signed or encrypted.
 */
export function protectionProblem(tcp: TcpSock): string | undefined {
  if ((tcp.md5sig ?? 0n) !== 0n || (tcp.ao ?? 0n) !== 0n)
    return 'that signs its segments (TCP_MD5SIG, TCP_AO)';
  return tcp.upperProtocol === 0n ? undefined : 'with a protocol of the kernel on top (TCP_ULP)';
}

/** What of a TCP socket, with a connection or without, is inside the kernel alone: `that signs ...`. */
export function socketProblem(tcp: TcpSock): string | undefined {
  const ownKey = tcp.fastOpenContext === 0n ? undefined : 'with a key of its own (TCP_FASTOPEN_KEY)';
  return protectionProblem(tcp) ?? ownKey;
}

/**
 * Options of SOL_TCP that CRIU, or CRIU 3.17, has no field for. Throws a FileRefusal for those that cannot be
 * set again.
 * @param connection whether the socket has, or had, a connection, or one that is lost: what that had is no
 * option any more
 */
export function tcpOptions(
  kernel: Kernel,
  sock: Sock,
  connection: 'none' | 'has' | 'had' | 'lost',
): LateOption[] {
  const tcp = kernel.bind(tcpSock).at(sock.address);
  const problem = connection === 'lost' ? protectionProblem(tcp) : socketProblem(tcp);
  if (problem !== undefined) throw new FileRefusal(`has a TCP socket ${problem}`);
  const isConnected = connection === 'has' || connection === 'lost';
  const hz = ticksPerSecond(kernel);
  const { nodelay, cork } = tcpSettings(kernel, tcp);
  const congestion = congestionOf(kernel, tcp);
  return [
    ...changedOptions([
      ['TCP_NODELAY', nodelay ? 1 : 0, 0],
      ['TCP_CORK', cork ? 1 : 0, 0],
      ['TCP_MAXSEG', tcp.userMss, 0],
      ['TCP_SYNCNT', tcp.synRetries, 0],
      ['TCP_LINGER2', tcp.linger2 < 0 ? MINUS_ONE : Math.round(tcp.linger2 / hz), 0],
      ['TCP_DEFER_ACCEPT', deferAcceptSeconds(tcp.deferAccept), 0],
      // A connection has one of the kernel's own, which stays when it has ended. On one that CRIU has made it
      // is that of buffers without end.
      ['TCP_WINDOW_CLAMP', connection === 'had' ? 0 : tcp.window_clamp, 0],
      ['TCP_THIN_LINEAR_TIMEOUTS', tcp.thin_lto, 0],
      ['TCP_USER_TIMEOUT', tcp.userTimeout, 0],
      ['TCP_FASTOPEN', tcp.fastOpenQueue, 0],
      ['TCP_NOTSENT_LOWAT', tcp.notsent_lowat, 0],
      ['TCP_SAVE_SYN', tcp.save_syn, 0],
      // They mean something before there is a connection, and can be set only then.
      ['TCP_FASTOPEN_CONNECT', isConnected ? 0 : tcp.fastopen_connect, 0],
      ['TCP_FASTOPEN_NO_COOKIE', isConnected ? 0 : tcp.fastopen_no_cookie, 0],
      ['TCP_INQ', tcp.recvmsg_inq, 0],
      ['TCP_TX_DELAY', tcp.tcp_tx_delay, 0],
    ]),
    ...(congestion === undefined ? [] : [{ name: 'TCP_CONGESTION', value: congestion } as const]),
  ];
}

/** Options of SOL_UDP. Throws a FileRefusal for those that cannot be set again. */
export function udpOptions(kernel: Kernel, sock: Sock): LateOption[] {
  const udp = kernel.bind(udpSock).at(sock.address);
  if (udp.encap_type !== 0) throw new FileRefusal('has a UDP socket that carries a tunnel (UDP_ENCAP)');
  if (udp.pending !== 0) throw new FileRefusal('has a UDP socket with data that was not sent');
  if (udp.pcslen !== 0 || udp.pcrlen !== 0)
    throw new FileRefusal('has a UDP-Lite socket with a checksum coverage of its own');
  return changedOptions([
    ['UDP_CORK', udpFlag(kernel, udp, 'cork'), 0],
    ['UDP_NO_CHECK6_TX', udpFlag(kernel, udp, 'noCheck6Tx'), 0],
    ['UDP_NO_CHECK6_RX', udpFlag(kernel, udp, 'noCheck6Rx'), 0],
    ['UDP_SEGMENT', udp.gso_size, 0],
    ['UDP_GRO', udpFlag(kernel, udp, 'gro'), 0],
  ]);
}
