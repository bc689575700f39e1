import { closeSync } from 'node:fs';
import { takeDescriptor } from '../../system/descriptors.ts';
import { SOL_SOCKET, setsockopt } from '../../system/sockets.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';

/** include/uapi/asm-generic/socket.h */
const SO_LINGER = 13;
/** `struct linger`: on, for no time. A close then is a reset (__tcp_close, net/ipv4/tcp.c). */
const AT_ONCE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

/**
 * Has the connections of a group that is about to be ended end with a reset. Their peers would take an
 * ordinary close for the end of all that was to be said. Every connection has options in the plan; for what
 * else is there the setting means nothing. A socket that CRIU has not finished says nothing when it is closed
 * (TCP_REPAIR).
 *
 * @param members processes of the restore; who else has a number of the plan is left alone
 */
export function resetConnections(
  { connections, sockets }: Pick<RestorePlan, 'connections' | 'sockets'>,
  members: readonly number[],
): void {
  if (connections === undefined) return;
  for (const { pid, fd } of sockets) {
    const socket = members.includes(pid) ? takeDescriptor(pid, fd) : -1;
    if (socket < 0) continue;
    setsockopt(socket, SOL_SOCKET, SO_LINGER, AT_ONCE, AT_ONCE.length);
    closeSync(socket);
  }
}
