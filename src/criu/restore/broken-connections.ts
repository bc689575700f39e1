import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { takeDescriptor } from '../../system/descriptors.ts';
import { SystemCallError } from '../../system/errno.ts';
import { checked } from '../../system/libc.ts';
import {
  AF_INET,
  AF_INET6,
  connect,
  intOption,
  SO_REUSEADDR,
  SOL_SOCKET,
  setsockopt,
  shutdown,
} from '../../system/sockets.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';

type Broken = RestorePlan['brokenConnections'][number];

/**
 * `struct sockaddr` of AF_UNSPEC, by which connect(2) ends a connection (inet_stream_connect,
 * net/ipv4/af_inet.c).
 */
const NOWHERE = new Uint8Array(16);
/** Both directions (shutdown(2)). */
const SHUT_RDWR = 2;
const SOL_TCP = 6;
/** include/uapi/linux/tcp.h: the option, and the value by which it is off and no segment is sent. */
const TCP_REPAIR = 19;
const REPAIR_OFF_SILENTLY = Uint8Array.of(0xff, 0xff, 0xff, 0xff);
const REPAIR_ON = Uint8Array.of(1, 0, 0, 0);

/** Any will do: nothing is sent there but a reset of a connection that nobody else has. */
const SOME_PORT = [0, 1] as const;
/** `struct sockaddr_in` and `sockaddr_in6`: 127.0.0.1, ::1 and ::ffff:127.0.0.1. */
const LOOPBACK = {
  four: Uint8Array.of(AF_INET, 0, ...SOME_PORT, 127, 0, 0, 1, ...new Array(8).fill(0)),
  six: Uint8Array.of(AF_INET6, 0, ...SOME_PORT, ...new Array(19).fill(0), 1, 0, 0, 0, 0),
  mapped: Uint8Array.of(
    ...[AF_INET6, 0, ...SOME_PORT],
    ...[0, 0, 0, 0, ...new Array(10).fill(0), 0xff, 0xff, 127, 0, 0, 1, 0, 0, 0, 0],
  ),
} as const;

/**
 * Gives a socket what a reset leaves: no connection, ECONNRESET for whoever uses it next, and both directions
 * shut down, so that further reads find the end and further writes EPIPE. tcp_disconnect (net/ipv4/tcp.c)
 * sets the error unless the socket is under repair; shutdown(2) of a socket without a connection does what
 * it says and returns ENOTCONN. A second connect(2) does not give EISCONN, as after a reset, but makes a
 * connection of which both directions are shut down. One that was being made has the error alone: shut down,
 * it could not be made once more by a connect(2) that is made again.
 */
export function breakConnection(socket: number, as: Broken['as']): void {
  checked('setsockopt', setsockopt(socket, SOL_TCP, TCP_REPAIR, REPAIR_OFF_SILENTLY, 4));
  checked('connect', connect(socket, NOWHERE, NOWHERE.length));
  if (as === 'connecting') return;
  const result = shutdown(socket, SHUT_RDWR);
  if (result !== -constants.errno.ENOTCONN) throw new SystemCallError('shutdown', -result);
}

/**
 * Gives a socket that is neither bound nor connected a connection that only it knows of: under repair, none
 * is made with anybody (tcp_connect, net/ipv4/tcp_output.c). It needs no network but the loopback, and the
 * kernel chooses a port that is free. Where IPv6 is turned off there is no ::1, but IPv4 for the same
 * socket.
 */
function connectUnderRepair(socket: number, family: NonNullable<Broken['unmade']>): void {
  checked('setsockopt', setsockopt(socket, SOL_TCP, TCP_REPAIR, REPAIR_ON, 4));
  const address = family === AF_INET ? LOOPBACK.four : LOOPBACK.six;
  const result = connect(socket, address, address.length);
  if (family === AF_INET6 && result < 0)
    checked('connect', connect(socket, LOOPBACK.mapped, LOOPBACK.mapped.length));
  else checked('connect', result);
}

/**
 * Resets the connections that are lost, when CRIU is done with them and before their processes run. Nothing
 * need be sent for it. Throws an Error if one cannot be: its process would wait for a peer that knows nothing
 * of it.
 */
export function breakConnections(broken: RestorePlan['brokenConnections']): void {
  for (const { pid, fd, as, unmade } of broken) {
    let socket = -1;
    try {
      socket = checked('pidfd_getfd', takeDescriptor(pid, fd));
      const reuse = intOption(socket, SOL_SOCKET, SO_REUSEADDR);
      if (unmade !== undefined) connectUnderRepair(socket, unmade);
      breakConnection(socket, as);
      // It goes when repair is turned off (do_tcp_setsockopt, net/ipv4/tcp.c), and its port would be taken.
      checked('setsockopt', setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, Uint8Array.of(reuse, 0, 0, 0), 4));
    } catch (error) {
      const which = `the connection of fd ${fd} of process ${pid}, which is lost,`;
      throw new Error(`${which} cannot be reset: ${messageOf(error)}`, { cause: error });
    } finally {
      if (socket >= 0) closeSync(socket);
    }
  }
}
