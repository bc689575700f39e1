import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type InetSocket,
  type NetlinkSocket,
  type Shutdown,
  type SocketOptions,
  socketState,
  type UnixSocket,
} from '../../../model/socket.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import {
  type InetSkEntrySchema,
  type NetlinkSkEntrySchema,
  type SkOptsEntrySchema,
  SkPacketEntrySchema,
  SkShutdown,
  type UnixSkEntrySchema,
} from '../proto/gen/socket_pb.ts';
import { head } from './common.ts';
import type { FileReferences } from './kind.ts';

/**
 * Flag of a socket that somebody else opens (criu/sk-unix.c); CRIU then makes no peer of its own for a
 * datagram socket.
 */
const USK_CALLBACK = 1 << 2;

function seconds(microseconds: number): bigint {
  return BigInt(Math.floor(microseconds / 1e6));
}

function rest(microseconds: number): bigint {
  return BigInt(microseconds % 1e6);
}

/** A `struct sock_filter` with its members in the opposite order (encode_filter in criu/sockets.c). */
function filterInstruction(instruction: bigint): bigint {
  const code = instruction & 0xffffn;
  const jumpTrue = (instruction >> 16n) & 0xffn;
  const jumpFalse = (instruction >> 24n) & 0xffn;
  return (instruction >> 32n) | (jumpFalse << 32n) | (jumpTrue << 40n) | (code << 48n);
}

function socketOptions(options: SocketOptions): MessageInitShape<typeof SkOptsEntrySchema> {
  const { sendTimeoutMicroseconds: send, receiveTimeoutMicroseconds: receive } = options;
  return {
    soSndbuf: options.sendBufferBytes,
    soRcvbuf: options.receiveBufferBytes,
    soSndTmoSec: seconds(send),
    soSndTmoUsec: rest(send),
    soRcvTmoSec: seconds(receive),
    soRcvTmoUsec: rest(receive),
    reuseaddr: options.reuseAddress,
    soReuseport: options.reusePort,
    soPriority: options.priority,
    soRcvlowat: options.receiveLowWatermark,
    ...(options.mark === 0 ? {} : { soMark: options.mark }),
    soPasscred: options.passCredentials,
    soPasssec: options.passSecurity,
    soDontroute: options.dontRoute,
    soNoCheck: options.noCheck,
    soBroadcast: options.broadcast,
    soKeepalive: options.keepAlive,
    soOobinline: options.oobInline ? 1 : 0,
    soBufLock: options.bufferLock,
    ...(options.lingerSeconds === undefined ? {} : { soLinger: options.lingerSeconds }),
    ...(options.boundDevice === undefined ? {} : { soBoundDev: options.boundDevice }),
    soFilter: options.filter.map(filterInstruction),
  };
}

const shutdowns = [SkShutdown.NONE, SkShutdown.READ, SkShutdown.WRITE, SkShutdown.BOTH] as const;

function shutdownEntry(shutdown: Shutdown): { shutdown?: SkShutdown } {
  return shutdown === 0 ? {} : { shutdown: shutdowns[shutdown] };
}

/** CRIU reads a path as a C string: it needs its zero byte, which is part of the name's length. */
function unixName(name: Uint8Array): Uint8Array {
  return name.length === 0 || name[0] === 0 ? name : Buffer.concat([name, Uint8Array.of(0)]);
}

/** What CRIU is told of a socket that is bound later: it is neither bound nor listens yet. */
function unnamed(socket: UnixSocket): UnixSocket {
  if (socket.ownMake === undefined) return socket;
  const state = socket.state === socketState.listen ? socketState.close : socket.state;
  const none = { name: new Uint8Array(), nameDirectory: undefined, file: undefined };
  return { ...socket, ...none, state, backlog: 0 };
}

/** A unix socket. Its peer is named by the inode number; flags tell the access mode and O_NONBLOCK. */
export function unixEntry(captured: UnixSocket): MessageInitShape<typeof UnixSkEntrySchema> {
  const socket = unnamed(captured);
  const { file, nameDirectory } = socket;
  return {
    ...head(socket),
    ino: socket.inode,
    type: socket.socketType,
    state: socket.state,
    uflags: socket.journal === undefined ? 0 : USK_CALLBACK,
    backlog: socket.backlog,
    peer: socket.peerInode,
    opts: socketOptions(socket.options),
    name: unixName(socket.name),
    ...shutdownEntry(socket.shutdown),
    ...(file === undefined ? {} : { filePerms: file }),
    ...(nameDirectory === undefined ? {} : { nameDir: nameDirectory }),
    ...(socket.deleted ? { deleted: true } : {}),
  };
}

/**
 * The socket that one is connected to. CRIU does not find a peer that comes later, and is not connected to
 * the socket in turn (try_resolve_unix_peer, criu/sk-unix.c).
 */
export function peerOf({ peerInode }: UnixSocket, { unixSockets }: FileReferences): UnixSocket[] {
  const peer = unixSockets.get(peerInode);
  return peer === undefined ? [] : [peer];
}

/** What was in a unix socket's queue, one entry a buffer, in `sk-queues.img`. */
export function writeUnixQueue(images: ImageDirectory, source: PageSource, socket: UnixSocket): void {
  for (const { data, bytes } of socket.queue) {
    const image = images.image('sk-queues');
    image.entry(SkPacketEntrySchema, { idFor: socket.id, length: bytes });
    if (bytes > 0) image.runs(source, data);
  }
}

/** An address in network order as the 32-bit words that a little-endian machine sees. */
function words(address: Uint8Array): number[] {
  const bytes = Buffer.from(address);
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
}

function tcpOptions({ tcp }: InetSocket): Pick<MessageInitShape<typeof InetSkEntrySchema>, 'tcpOpts'> {
  if (tcp === undefined) return {};
  const { cork, nodelay, keepCount, keepIdleSeconds, keepIntervalSeconds } = tcp;
  return {
    tcpOpts: {
      ...(cork ? { cork } : {}),
      ...(nodelay ? { nodelay } : {}),
      ...(keepCount === undefined ? {} : { keepcnt: keepCount }),
      ...(keepIdleSeconds === undefined ? {} : { keepidle: keepIdleSeconds }),
      ...(keepIntervalSeconds === undefined ? {} : { keepintvl: keepIntervalSeconds }),
    },
  };
}

/** The three keep-alive settings where CRIU before 4.0 looks for them. */
function oldKeepAlive({ tcp }: InetSocket): MessageInitShape<typeof SkOptsEntrySchema> {
  return {
    ...(tcp?.keepCount === undefined ? {} : { tcpKeepcnt: tcp.keepCount }),
    ...(tcp?.keepIdleSeconds === undefined ? {} : { tcpKeepidle: tcp.keepIdleSeconds }),
    ...(tcp?.keepIntervalSeconds === undefined ? {} : { tcpKeepintvl: tcp.keepIntervalSeconds }),
  };
}

/** A TCP or UDP socket. */
export function inetEntry(socket: InetSocket): MessageInitShape<typeof InetSkEntrySchema> {
  return {
    ...head(socket),
    ino: socket.inode,
    family: socket.family,
    type: socket.socketType,
    proto: socket.protocol,
    state: socket.state,
    srcPort: socket.sourcePort,
    dstPort: socket.destinationPort,
    backlog: socket.backlog,
    srcAddr: words(socket.sourceAddress),
    dstAddr: words(socket.destinationAddress),
    opts: { ...socketOptions(socket.options), ...oldKeepAlive(socket) },
    ...(socket.family === 10 ? { v6only: socket.v6only } : {}),
    ipOpts: {
      ...(socket.freebind ? { freebind: true } : {}),
      ...(socket.pktinfo ? { pktinfo: true } : {}),
      ...(socket.family === 2 && socket.tos !== 0 ? { tos: socket.tos } : {}),
      ...(socket.family === 2 && socket.ttl !== 0 ? { ttl: socket.ttl } : {}),
    },
    ...(socket.interfaceName === undefined ? {} : { ifname: socket.interfaceName }),
    ...shutdownEntry(socket.shutdown),
    ...tcpOptions(socket),
  };
}

/** A netlink socket. */
export function netlinkEntry(socket: NetlinkSocket): MessageInitShape<typeof NetlinkSkEntrySchema> {
  return {
    ...head(socket),
    ino: socket.inode,
    protocol: socket.protocol,
    state: socket.state,
    portid: socket.portId,
    groups: [...socket.groups],
    dstPortid: socket.destinationPortId,
    dstGroup: socket.destinationGroup,
    opts: socketOptions(socket.options),
  };
}
