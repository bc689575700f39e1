import { interfaceName } from '../../linux/inet.ts';
import { ticksPerSecond } from '../../linux/jiffies.ts';
import { type Sock, type Socket, socketFlag, sockFlag } from '../../linux/sock.ts';
import type { Shutdown, SocketOptions } from '../../model/socket.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { FileRefusal } from './refusal.ts';

/** MAX_SCHEDULE_TIMEOUT: no time limit. */
const NO_TIMEOUT = Number.MAX_SAFE_INTEGER;
/** SOCK_SNDBUF_LOCK | SOCK_RCVBUF_LOCK of sk_userlocks. */
const BUFFER_LOCKS = 3;

function timeoutMicroseconds(hz: number, jiffies: bigint): number {
  return jiffies >= BigInt(NO_TIMEOUT) ? 0 : Math.round((Number(jiffies) * 1e6) / hz);
}

function hasSocketFlag(socket: Socket, flag: keyof typeof socketFlag): boolean {
  return Math.floor(socket.flags / 2 ** socketFlag[flag]) % 2 === 1;
}

/**
 * The options of SOL_SOCKET. Throws a FileRefusal for what cannot be carried: a socket filter, or an interface that is not
 * known any more.
 */
export function socketOptions(kernel: Kernel, socket: Socket, sock: Sock): SocketOptions {
  if (sock.sk_filter !== 0n) throw new FileRefusal('has a socket with a filter');
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
  };
}

/** `sk_shutdown` as its two bits. */
export function shutdownOf(sock: Sock): Shutdown {
  const bits = sock.sk_shutdown & 3;
  return bits === 0 ? 0 : bits === 1 ? 1 : bits === 2 ? 2 : 3;
}
