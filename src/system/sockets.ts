import { checked, libcFunction } from './libc.ts';

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
/** include/uapi/linux/in.h */
export const SOL_IP = 0;
export const IP_FREEBIND = 15;
const SCM_RIGHTS = 1;
/** Size of `sun_path` (unix(7)). */
export const SUN_PATH_BYTES = 108;

/** One end of a TCP connection: 4 or 16 bytes of address, in network order. */
export interface TcpEnd {
  readonly address: Uint8Array;
  readonly port: number;
}

/** `struct sockaddr_in` or `struct sockaddr_in6` (ip(7), ipv6(7)), by how long the address is. */
export function socketAddress({ address, port }: TcpEnd): Buffer {
  const isFour = address.length === 4;
  const bytes = Buffer.alloc(isFour ? 16 : 28);
  bytes.writeUInt16LE(isFour ? AF_INET : AF_INET6, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(address, isFour ? 4 : 8);
  return bytes;
}

/** socket(2). */
export const socket = libcFunction<[domain: number, type: number, protocol: number]>(
  'int socket(int domain, int type, int protocol)',
);

/** bind(2). */
export const bind = libcFunction<[fd: number, address: Uint8Array, length: number]>(
  'int bind(int fd, const uint8_t *address, uint32_t length)',
);

/** listen(2). */
export const listen = libcFunction<[fd: number, backlog: number]>('int listen(int fd, int backlog)');

/** connect(2). */
export const connect = libcFunction<[fd: number, address: Uint8Array, length: number]>(
  'int connect(int fd, const uint8_t *address, uint32_t length)',
);

/** shutdown(2). */
export const shutdown = libcFunction<[fd: number, how: number]>('int shutdown(int fd, int how)');

/** setsockopt(2). */
export const setsockopt = libcFunction<
  [fd: number, level: number, option: number, value: Uint8Array, length: number]
>('int setsockopt(int fd, int level, int option, const uint8_t *value, uint32_t length)');

const getsockoptCall = libcFunction<
  [fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array]
>('int getsockopt(int fd, int level, int option, void *value, void *length)');

/** An option that is an int (getsockopt(2)). @throws SystemCallError */
export function intOption(fd: number, level: number, option: number): number {
  const [value, length] = [Buffer.alloc(4), Buffer.of(4, 0, 0, 0)];
  checked('getsockopt', getsockoptCall(fd, level, option, value, length));
  return value.readInt32LE();
}

/** send(2). */
export const send = libcFunction<[fd: number, data: Uint8Array, length: number, flags: number]>(
  'int64_t send(int fd, const uint8_t *data, size_t length, int flags)',
);

/** recv(2). */
export const recv = libcFunction<[fd: number, data: Uint8Array, length: number, flags: number]>(
  'int64_t recv(int fd, void *data, size_t length, int flags)',
);

const socketpairCall = libcFunction<[domain: number, type: number, protocol: number, pair: Uint8Array]>(
  'int socketpair(int domain, int type, int protocol, void *pair)',
);

/** Two sockets that are connected (socketpair(2)). @throws SystemCallError */
export function socketpair(domain: number, type: number): [number, number] {
  const pair = Buffer.alloc(8);
  checked('socketpair', socketpairCall(domain, type, 0, pair));
  return [pair.readInt32LE(0), pair.readInt32LE(4)];
}

/** `struct iovec` and `struct msghdr` of recvmsg(2), under names that koffi has not. */
const structures = {
  otherworld_iovec: { base: 'const uint8_t *', length: 'size_t' },
  otherworld_msghdr: {
    name: 'const uint8_t *',
    nameLength: 'uint32_t',
    iov: 'otherworld_iovec *',
    iovLength: 'size_t',
    control: 'const uint8_t *',
    controlLength: 'size_t',
    flags: 'int',
  },
};
const sendmsg = libcFunction<[fd: number, message: object, flags: number]>(
  'long sendmsg(int fd, const otherworld_msghdr *message, int flags)',
  structures,
);

/**
 * Sends text and a descriptor, which the receiver gets as one of its own (SCM_RIGHTS of unix(7)).
 * @throws SystemCallError
 */
export function sendDescriptor(to: number, text: string, fd: number): void {
  const control = Buffer.alloc(24);
  control.writeBigUInt64LE(20n, 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, 16);
  const base = Buffer.from(text);
  const message = {
    name: null,
    nameLength: 0,
    iov: { base, length: base.length },
    iovLength: 1,
    control,
    controlLength: control.length,
    flags: 0,
  };
  checked('sendmsg', sendmsg(to, message, 0));
}
