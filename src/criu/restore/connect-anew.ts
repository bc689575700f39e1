import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { F_SETFL, fcntl, takeDescriptor } from '../../system/descriptors.ts';
import { errnoText } from '../../system/errno.ts';
import { connect, SOCK_NONBLOCK } from '../../system/sockets.ts';
import type { PlannedConnect } from '../images/plan/restore-plan.ts';

/** `struct sockaddr_in` or `struct sockaddr_in6` (ip(7), ipv6(7)). */
export function socketAddress({
  family,
  address,
  port,
}: Pick<PlannedConnect, 'family' | 'address' | 'port'>): Buffer {
  const bytes = Buffer.alloc(family === 2 ? 16 : 28);
  bytes.writeUInt16LE(family, 0);
  bytes.writeUInt16BE(port, 2);
  Buffer.from(address, 'hex').copy(bytes, family === 2 ? 4 : 8);
  return bytes;
}

function connectOne(planned: PlannedConnect): string[] {
  const { pid, fd, flags } = planned;
  const what = `the connection of fd ${fd} of process ${pid} cannot be begun anew`;
  const socket = takeDescriptor(pid, fd);
  if (socket < 0) return [`${what} (${errnoText(-socket)})`];
  try {
    // The processes do not run: nobody sees the flag.
    if (fcntl(socket, F_SETFL, flags | SOCK_NONBLOCK) !== 0) return [what];
    const target = socketAddress(planned);
    const result = connect(socket, target, target.length);
    const isBack = fcntl(socket, F_SETFL, flags) === 0;
    if (result !== -constants.errno.EINPROGRESS)
      return [`${what} (${result === 0 ? 'it was there at once' : errnoText(-result)})`];
    return isBack ? [] : [`${what} (its flags have changed)`];
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
