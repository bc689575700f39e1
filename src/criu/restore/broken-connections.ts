import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { takeDescriptor } from '../../system/descriptors.ts';
import { SystemCallError } from '../../system/errno.ts';
import { checked } from '../../system/libc.ts';
import { connect, setsockopt, shutdown } from '../../system/sockets.ts';
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
 * Resets the connections that are lost, when CRIU is done with them and before their processes run. Nothing
 * need be sent for it. Throws an Error if one cannot be: its process would wait for a peer that knows nothing
 * of it.
 */
export function breakConnections(broken: RestorePlan['brokenConnections']): void {
  for (const { pid, fd, as } of broken) {
    let socket = -1;
    try {
      socket = checked('pidfd_getfd', takeDescriptor(pid, fd));
      breakConnection(socket, as);
    } catch (error) {
      const which = `the connection of fd ${fd} of process ${pid}, which is lost,`;
      throw new Error(`${which} cannot be reset: ${messageOf(error)}`, { cause: error });
    } finally {
      if (socket >= 0) closeSync(socket);
    }
  }
}
