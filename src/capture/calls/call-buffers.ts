import type { UserBuffer } from '../../linux/iov-iter.ts';
import type { UserMemory } from '../../linux/readers/user-memory.ts';

type Memory = Pick<UserMemory, 'read'>;

/** Longest transfer that the kernel makes at once (MAX_RW_COUNT). */
const MAX_RW_COUNT = 0x7fff_f000n;
/** UIO_MAXIOV (include/uapi/linux/uio.h). */
const MAX_BUFFERS = 1024n;
const IOVEC_BYTES = 16;
/** `struct user_msghdr` (include/linux/socket.h): where its list of buffers is. */
const MSGHDR = { bytes: 32, list: 16, count: 24 } as const;

/** Calls of the transfer class whose buffer and length are the second and third argument. */
const plain: ReadonlySet<string> = new Set(['read', 'write', 'sendto', 'recvfrom']);
/** Those whose list of buffers and its length are. */
const vectors: ReadonlySet<string> = new Set(['readv', 'writev']);

function listed(user: Memory, address: bigint, count: bigint): UserBuffer[] | undefined {
  if (count > MAX_BUFFERS) return undefined;
  const list = user.read(address, Number(count) * IOVEC_BYTES);
  if (list.kind !== 'bytes') return undefined;
  return Array.from({ length: Number(count) }, (_, i) => ({
    address: list.bytes.readBigUInt64LE(i * IOVEC_BYTES),
    length: list.bytes.readBigUInt64LE(i * IOVEC_BYTES + 8),
  }));
}

/** Bytes that a call was asked to move, if it names them itself. */
export function requestedBytes(name: string, [, , count = 0n]: readonly bigint[]): number {
  if (!plain.has(name)) return Number.MAX_SAFE_INTEGER;
  return Number(count < MAX_RW_COUNT ? count : MAX_RW_COUNT);
}

/**
 * The buffers of a call of the transfer class, as the program has given them.
 * @returns undefined if they cannot be read, or the kernel would have refused or shortened the list
 */
export function buffersOf(
  name: string,
  [, address = 0n, count = 0n]: readonly bigint[],
  user: Memory,
): readonly UserBuffer[] | undefined {
  if (plain.has(name)) return [{ address, length: count < MAX_RW_COUNT ? count : MAX_RW_COUNT }];
  if (vectors.has(name)) return withinLimit(listed(user, address, count));
  const header = user.read(address, MSGHDR.bytes);
  if (header.kind !== 'bytes') return undefined;
  const list = header.bytes.readBigUInt64LE(MSGHDR.list);
  return withinLimit(listed(user, list, header.bytes.readBigUInt64LE(MSGHDR.count)));
}

function withinLimit(buffers: readonly UserBuffer[] | undefined): readonly UserBuffer[] | undefined {
  const total = buffers?.reduce((sum, { length }) => sum + length, 0n) ?? 0n;
  return total <= MAX_RW_COUNT ? buffers : undefined;
}
