import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { SOCK_STREAM } from './abi.ts';
import { checked } from './libc.ts';
import {
  AF_INET,
  AF_INET6,
  bind,
  IP_FREEBIND,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOL_IP,
  SOL_SOCKET,
  setsockopt,
  socket,
  socketAddress,
  type TcpEnd,
} from './sockets.ts';

const ON = Uint8Array.of(1, 0, 0, 0);

/** A socket that is bound, and nothing else; undefined if somebody has the port already. */
function boundSocket(end: TcpEnd): number | undefined {
  const family = end.address.length === 4 ? AF_INET : AF_INET6;
  const made = checked('socket', socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  try {
    // Others that ask for it by its number have it, as far as a connection would let them.
    checked('setsockopt', setsockopt(made, SOL_SOCKET, SO_REUSEADDR, ON, ON.length));
    // The address is not there yet. Of IPv6 too.
    checked('setsockopt', setsockopt(made, SOL_IP, IP_FREEBIND, ON, ON.length));
    const address = socketAddress(end);
    const result = bind(made, address, address.length);
    if (result !== -constants.errno.EADDRINUSE) {
      checked('bind', result);
      return made;
    }
  } catch (error) {
    closeSync(made);
    throw error;
  }
  closeSync(made);
  return undefined;
}

/**
 * Keeps the kernel from choosing ports of connections that are not there for others (connect(2), and bind(2)
 * with port 0): one that reaches the same peer from the same port would be in their place. CRIU binds its
 * sockets all the same (SK_FORCE_REUSE, as long as they are in TCP_REPAIR).
 *
 * @returns descriptors: it is so as long as somebody has them
 * @throws SystemCallError
 */
export function holdPorts(ends: readonly TcpEnd[]): number[] {
  const kept: number[] = [];
  const seen = new Set<string>();
  try {
    for (const end of ends) {
      const key = `${end.port} ${end.address.join('.')}`;
      if (seen.has(key)) continue;
      seen.add(key);
      const fd = boundSocket(end);
      if (fd !== undefined) kept.push(fd);
    }
    return kept;
  } catch (error) {
    for (const fd of kept) closeSync(fd);
    throw error;
  }
}
