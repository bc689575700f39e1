import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { F_SETFL, fcntl, takeDescriptor } from '../../system/descriptors.ts';
import { errnoText } from '../../system/errno.ts';
import { connect, SOCK_NONBLOCK, socketAddress } from '../../system/sockets.ts';
import { messageOf } from '../../system/thrown.ts';
import type { PlannedConnect } from '../images/plan/restore-plan.ts';
import { ip, LAST_METRIC } from './connection-network.ts';
import { INTERFACE } from './names.ts';

/**
 * A connection that is begun anew has the address that it had: the machine may have several, and chooses by
 * the route. It is there for this one socket, and for as long as the call takes: where the initramfs has
 * brought up the network, others may be talking to the same peer. Throws an Error if it cannot be made or
 * taken away.
 */
function onWay(way: PlannedConnect['route'], call: () => number): number {
  if (way === undefined) return call();
  const route = `${way.to} dev ${INTERFACE} metric ${LAST_METRIC}`;
  ip([`route replace ${route} src ${way.from}`]);
  try {
    return call();
  } finally {
    ip([`route delete ${route}`]);
  }
}

function connectOne(planned: PlannedConnect): string[] {
  const { pid, fd, flags } = planned;
  const what = `the connection of fd ${fd} of process ${pid} cannot be begun anew`;
  const socket = takeDescriptor(pid, fd);
  if (socket < 0) return [`${what} (${errnoText(-socket)})`];
  try {
    // The processes do not run: nobody sees the flag.
    if (fcntl(socket, F_SETFL, flags | SOCK_NONBLOCK) !== 0) return [what];
    const target = socketAddress({ address: Buffer.from(planned.address, 'hex'), port: planned.port });
    const result = onWay(planned.route, () => connect(socket, target, target.length));
    const isBack = fcntl(socket, F_SETFL, flags) === 0;
    if (result !== -constants.errno.EINPROGRESS)
      return [`${what} (${result === 0 ? 'it was there at once' : errnoText(-result)})`];
    return isBack ? [] : [`${what} (its flags have changed)`];
  } catch (error) {
    return [`${what} (${messageOf(error)})`];
  } finally {
    closeSync(socket);
  }
}

/**
 * Has sockets connect that were connecting: they are so afterwards, and the kernel sends their SYN again and
 * again, as it does for one that has been lost. Their processes have to be there, and not run.
 *
 * @returns one end of a sentence for each that is not
 */
export function connectAnew(connects: readonly PlannedConnect[]): string[] {
  return connects.flatMap(connectOne);
}
