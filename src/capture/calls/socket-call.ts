/** Flags of receiving calls (include/linux/socket.h). */
const MSG = { trunc: 0x20n, waitAll: 0x100n, errorQueue: 0x2000n, deviceMemory: 0x200_0000n } as const;

/** The flags that a call was given that receives from a socket; 0 for others. */
function receiveFlags(name: string, given: readonly bigint[]): bigint {
  return (name === 'recvmsg' ? given[2] : name === 'recvfrom' ? given[3] : 0n) ?? 0n;
}

/** Whether a receive goes on waiting until its buffers are full. */
export function waitsForAll(name: string, given: readonly bigint[]): boolean {
  return (receiveFlags(name, given) & MSG.waitAll) !== 0n;
}

/**
 * Whether the bytes that a call moves are counted in its iov_iter. With MSG_TRUNC, TCP takes them off the
 * stream and copies nothing (tcp_recvmsg_locked, net/ipv4/tcp.c); nor, since 6.12, with MSG_SOCK_DEVMEM, if
 * they are in the memory of a device. With MSG_ERRQUEUE, a message is off its queue before it is copied.
 */
function countsAllBytes(name: string, given: readonly bigint[]): boolean {
  return (receiveFlags(name, given) & (MSG.trunc | MSG.errorQueue | MSG.deviceMemory)) === 0n;
}

/**
 * Whether the number of bytes is all that a call gives. At its end `recvmsg` writes flags, an address, and
 * the control data with descriptors that came (____sys_recvmsg, net/socket.c), `recvfrom` an address.
 */
function givesBytesAlone(name: string, given: readonly bigint[]): boolean {
  return name !== 'recvmsg' && (name !== 'recvfrom' || (given[4] ?? 0n) === 0n);
}

/**
 * How many bytes a transfer is taken to have moved.
 *
 * @param given the call's arguments
 * @param counted what its iov_iter counts
 * @returns undefined if that is not all that the call has taken, or not all that it would have given
 */
export function movedBytes(
  name: string,
  given: readonly bigint[],
  counted: number | undefined,
): number | undefined {
  if (!countsAllBytes(name, given)) return undefined;
  return counted === 0 || givesBytesAlone(name, given) ? counted : undefined;
}

const byFile: ReadonlySet<string> = new Set(['read', 'write', 'readv', 'writev']);

/** Whether a call on a socket has a copy of its iov_iter (sock_read_iter, sock_write_iter, net/socket.c). */
export function copiesIter(name: string): boolean {
  return byFile.has(name);
}
