import { socketFilter } from '../../../linux/filter.ts';
import { type File, inodeStruct } from '../../../linux/fs.ts';
import { interfaceName } from '../../../linux/inet.ts';
import { ticksPerSecond } from '../../../linux/jiffies.ts';
import { type Socket, socketFlag } from '../../../linux/net.ts';
import { type Sock, type SockFlag, sockFlag } from '../../../linux/sock.ts';
import { hasReuseportProgram } from '../../../linux/sock-reuseport.ts';
import type { Shutdown, SocketOptions } from '../../../model/socket.ts';
import { changedOptions, type LateOption } from '../../../model/socket-option.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { FileRefusal } from '../refusal.ts';

/** MAX_SCHEDULE_TIMEOUT: no time limit. */
const NO_TIMEOUT = Number.MAX_SAFE_INTEGER;
/** SOCK_SNDBUF_LOCK | SOCK_RCVBUF_LOCK of sk_userlocks. */
const BUFFER_LOCKS = 3;

function timeoutMicroseconds(hz: number, jiffies: bigint): number {
  return jiffies >= BigInt(NO_TIMEOUT) ? 0 : Math.round((Number(jiffies) * 1e6) / hz);
}

function hasSocketFlag(socket: Socket, flag: keyof typeof socketFlag): boolean {
  return socket.flags.has(socketFlag[flag]);
}

/** SOF_TIMESTAMPING_OPT_ID and _BIND_PHC: stamps are numbered, or come from a clock of the network card. */
const STAMPS_WITH_STATE = (1 << 7) | (1 << 15);
/** A pacing rate without a limit; sockets on which nothing was set have it in 32 or in 64 bits. */
const NO_PACING = [0xffff_ffff_ffff_ffffn, 0xffff_ffffn];

function checkOptions(kernel: Kernel, sock: Sock): void {
  if (hasReuseportProgram(kernel, sock))
    throw new FileRefusal('has a socket with a program that chooses among sockets (SO_ATTACH_REUSEPORT_*)');
  if (sockFlag(kernel, sock, 'transmitTime'))
    throw new FileRefusal('has a socket that sends at given times (SO_TXTIME)');
  if ((sock.sk_tsflags & STAMPS_WITH_STATE) !== 0)
    throw new FileRefusal('has a socket that numbers its time stamps (SO_TIMESTAMPING)');
  if (sock.sk_max_pacing_rate > 0xffff_ffffn && !NO_PACING.includes(sock.sk_max_pacing_rate))
    throw new FileRefusal('has a socket with a pacing rate above 32 bits (SO_MAX_PACING_RATE)');
}

/**
 * Options of SOL_SOCKET that CRIU has no field for. Throws a FileRefusal for those that cannot be set again.
 */
export function lateSocketOptions(kernel: Kernel, socket: Socket, sock: Sock): LateOption[] {
  checkOptions(kernel, sock);
  const bit = (flag: SockFlag) => (sockFlag(kernel, sock, flag) ? 1 : 0);
  const isNew = bit('newTimestamps') === 1;
  const stamp = bit('receiveTimestamp') - bit('nanoseconds');
  return changedOptions([
    ['SO_DEBUG', bit('debug'), 0],
    [isNew ? 'SO_TIMESTAMP_NEW' : 'SO_TIMESTAMP_OLD', stamp, 0],
    [isNew ? 'SO_TIMESTAMPNS_NEW' : 'SO_TIMESTAMPNS_OLD', bit('nanoseconds'), 0],
    [isNew ? 'SO_TIMESTAMPING_NEW' : 'SO_TIMESTAMPING_OLD', sock.sk_tsflags, 0],
    ['SO_RXQ_OVFL', bit('overflow'), 0],
    ['SO_WIFI_STATUS', bit('wifiStatus'), 0],
    ['SO_NOFCS', bit('noFcs'), 0],
    ['SO_RCVMARK', bit('receiveMark'), 0],
    ['SO_SELECT_ERR_QUEUE', bit('selectErrorQueue'), 0],
    ['SO_ZEROCOPY', bit('zeroCopy'), 0],
    ['SO_LOCK_FILTER', bit('filterLocked'), 0],
    ['SO_PEEK_OFF', sock.sk_peek_off, -1],
    ['SO_BUSY_POLL', sock.sk_ll_usec, kernel.memory.u32(kernel.symbol('sysctl_net_busy_read'))],
    ['SO_PREFER_BUSY_POLL', sock.sk_prefer_busy_poll, 0],
    ['SO_BUSY_POLL_BUDGET', sock.sk_busy_poll_budget, 0],
    ['SO_RESERVE_MEM', sock.sk_reserved_mem, 0],
    // Anything but 0 is the system's default or became it by listen(2).
    ['SO_TXREHASH', sock.sk_txrehash === 0 ? 0 : undefined, 1],
    ['SO_PASSPIDFD', hasSocketFlag(socket, 'passPidfd') ? 1 : 0, 0],
    ...(NO_PACING.includes(sock.sk_max_pacing_rate)
      ? []
      : [['SO_MAX_PACING_RATE', Number(sock.sk_max_pacing_rate), 0] as const]),
  ]);
}

/**
 * The options of SOL_SOCKET that CRIU carries. Throws a FileRefusal for what cannot be carried: a filter that
 * is no classic one, or an interface that is not known any more.
 */
export function socketOptions(kernel: Kernel, socket: Socket, sock: Sock): SocketOptions {
  const filter = socketFilter(kernel, sock);
  if (filter === undefined) throw new FileRefusal('has a socket with a filter (SO_ATTACH_BPF)');
  const hz = ticksPerSecond(kernel);
  const index = sock.boundInterface;
  const boundDevice = index === 0 ? undefined : interfaceName(kernel, sock, index);
  if (index !== 0 && boundDevice === undefined) {
    throw new FileRefusal(`has a socket bound to interface ${index}, which does not exist`);
  }
  return {
    sendBufferBytes: sock.sk_sndbuf,
    receiveBufferBytes: sock.sk_rcvbuf,
    bufferLock: sock.sk_userlocks & BUFFER_LOCKS,
    sendTimeoutMicroseconds: timeoutMicroseconds(hz, sock.sk_sndtimeo),
    receiveTimeoutMicroseconds: timeoutMicroseconds(hz, sock.sk_rcvtimeo),
    reuseAddress: sock.reuse !== 0,
    reusePort: sock.reuseport !== 0,
    priority: sock.sk_priority,
    receiveLowWatermark: sock.sk_rcvlowat,
    mark: sock.sk_mark,
    passCredentials: hasSocketFlag(socket, 'passCredentials'),
    passSecurity: hasSocketFlag(socket, 'passSecurity'),
    dontRoute: sockFlag(kernel, sock, 'localRoute'),
    noCheck: sock.sk_no_check_tx !== 0,
    broadcast: sockFlag(kernel, sock, 'broadcast'),
    keepAlive: sockFlag(kernel, sock, 'keepOpen'),
    oobInline: sockFlag(kernel, sock, 'urgentInline'),
    lingerSeconds: sockFlag(kernel, sock, 'linger') ? Math.round(sock.sk_lingertime / hz) : undefined,
    boundDevice,
    filter,
  };
}

/** `sk_shutdown` as its two bits. */
export function shutdownOf(sock: Pick<Sock, 'sk_shutdown'>): Shutdown {
  const bits = sock.sk_shutdown & 3;
  return bits === 0 ? 0 : bits === 1 ? 1 : bits === 2 ? 2 : 3;
}

/**
 * What fstat(2) shows of a socket: its number in sockfs, and its owner, which netfilter and routing rules go
 * by as well.
 */
export function socketIdentity(kernel: Kernel, file: File): { inode: number; uid: number; gid: number } {
  const { i_ino: inode, i_uid: uid, i_gid: gid } = kernel.bind(inodeStruct).at(file.f_inode);
  return { inode, uid, gid };
}
