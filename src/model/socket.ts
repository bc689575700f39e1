import type { OpenFileCommon, OwnMake, PhysicalRun } from './open-file.ts';
import type { LateOption } from './socket-option.ts';

/** Options of SOL_SOCKET, as getsockopt(2) reports them. */
export interface SocketOptions {
  readonly sendBufferBytes: number;
  readonly receiveBufferBytes: number;
  /** SOCK_SNDBUF_LOCK 1 | SOCK_RCVBUF_LOCK 2: sizes that were set by hand. */
  readonly bufferLock: number;
  /** Microseconds; 0 is no limit. */
  readonly sendTimeoutMicroseconds: number;
  readonly receiveTimeoutMicroseconds: number;
  readonly reuseAddress: boolean;
  readonly reusePort: boolean;
  readonly priority: number;
  readonly receiveLowWatermark: number;
  readonly mark: number;
  readonly passCredentials: boolean;
  readonly passSecurity: boolean;
  readonly dontRoute: boolean;
  readonly noCheck: boolean;
  readonly broadcast: boolean;
  readonly keepAlive: boolean;
  readonly oobInline: boolean;
  /** Seconds; undefined if SO_LINGER is off. */
  readonly lingerSeconds: number | undefined;
  /** SO_BINDTODEVICE, undefined if not bound. */
  readonly boundDevice: string | undefined;
  /** SO_ATTACH_FILTER: a `struct sock_filter` of eight bytes each; empty for none. */
  readonly filter: readonly bigint[];
}

/** `sk_shutdown`: RCV_SHUTDOWN 1 | SEND_SHUTDOWN 2. */
export type Shutdown = 0 | 1 | 2 | 3;

/** States of a socket that occur in images (include/net/tcp_states.h). */
export const socketState = {
  established: 1,
  finWait1: 4,
  finWait2: 5,
  close: 7,
  closeWait: 8,
  lastAck: 9,
  listen: 10,
  closing: 11,
} as const;
export type SocketState = (typeof socketState)[keyof typeof socketState];

interface SocketCommon extends OpenFileCommon {
  /** Inode number in sockfs, by which sockets name each other. */
  readonly inode: number;
  /** Who made the socket. */
  readonly uid: number;
  readonly gid: number;
  /** SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5. */
  readonly socketType: number;
  readonly state: SocketState;
  readonly options: SocketOptions;
  /** Options that CRIU has no field for, in the order in which they have to be set. */
  readonly lateOptions: readonly LateOption[];
  readonly shutdown: Shutdown;
}

/** One buffer in a socket's receive queue. */
export interface SocketPacket {
  readonly data: readonly PhysicalRun[];
  readonly bytes: number;
}

export interface UnixSocket extends SocketCommon {
  readonly type: 'unix';
  /** Of a listening socket, 0 otherwise. */
  readonly backlog: number;
  /** Inode of the peer, or of the listening socket that has not accepted the connection yet; 0 for none. */
  readonly peerInode: number;
  /** sun_path as given to bind: a path, an abstract name (first byte zero) or empty. */
  readonly name: Uint8Array;
  /** Directory that a relative name starts from. */
  readonly nameDirectory: string | undefined;
  /** Mode and owner of the socket's file, if it has one. */
  readonly file: { readonly mode: number; readonly uid: number; readonly gid: number } | undefined;
  /** The file has been unlinked. */
  readonly deleted: boolean;
  /**
   * Set if it has a file in a directory where others than root could lead CRIU elsewhere, or one that was
   * renamed: CRIU makes it without a name, and it is bound when its process is there.
   */
  readonly ownMake: OwnMake | undefined;
  /** The process that has such a socket listen, if it did: its clients are told of that one (SO_PEERCRED). */
  readonly listener?: number | undefined;
  /** Where its file is, if its name has to lead there through links of directories. */
  readonly leadsTo?: string | undefined;
  readonly queue: readonly SocketPacket[];
  /** Set if the other end was the journal's, which is another one now. */
  readonly journal: JournalSocket | undefined;
}

/** How the journal treats what is written to a stream. */
export interface JournalStream {
  /** SYSLOG_IDENTIFIER of the messages. */
  readonly identifier: string;
  /** 0 (emergency) to 7 (debug): of lines that do not begin with a level of their own, like `<3>`. */
  readonly level: number;
  /** Whether such a beginning is looked for. */
  readonly levelPrefix: boolean;
}

/**
 * A socket to the system's log. What is written to a stream goes to the new journal, with the same identifier
 * and level.
 *
 * A datagram socket finds that its peer is gone, as after a restart of the log daemon: the C library then
 * opens it again.
 */
export type JournalSocket = ({ readonly kind: 'stream' } & JournalStream) | { readonly kind: 'datagram' };

export interface InetSocket extends SocketCommon {
  readonly type: 'inet';
  /** AF_INET 2 or AF_INET6 10. */
  readonly family: 2 | 10;
  readonly protocol: number;
  /** 4 or 16 bytes in network order. */
  readonly sourceAddress: Uint8Array;
  readonly sourcePort: number;
  readonly destinationAddress: Uint8Array;
  readonly destinationPort: number;
  readonly backlog: number;
  readonly v6only: boolean;
  readonly freebind: boolean;
  readonly pktinfo: boolean;
  readonly tos: number;
  readonly ttl: number;
  /** Interface of a link-local source address. */
  readonly interfaceName: string | undefined;
  readonly tcp: TcpOptions | undefined;
  /** Set if the socket is connected by TCP, or was and has not ended both ways. */
  readonly connection: TcpConnection | undefined;
  /** Set if the socket is being connected by TCP, and its peer has not answered yet. */
  readonly connecting: TcpConnecting | undefined;
  /**
   * Set if the connection is lost, and is reset before its process runs: as one that both ends had made, or
   * as one that was being made, which can be tried again. In a sandbox there is no `connection` with it.
   */
  readonly broken: 'connected' | 'connecting' | undefined;
  /**
   * Who has the other end of the connection, if that comes back at another time: one of the two is in a
   * sandbox, and the other one is not, or in another one.
   */
  readonly apart?: { readonly pid: number; readonly comm: string } | undefined;
}

/** Where a socket is being connected to, and from which address; all in network order. */
export interface TcpConnecting {
  readonly source: Uint8Array;
  readonly address: Uint8Array;
  readonly port: number;
}

/** Bytes of a connection that are in one of its queues, in the order of the stream. */
export interface StreamBytes {
  readonly data: readonly PhysicalRun[];
  readonly bytes: number;
}

/**
 * A TCP connection, as TCP_REPAIR of the kernel makes it again. Sequence numbers have 32 bits, and count a
 * FIN that was received or is to be sent as one byte; queues do not have it.
 */
export interface TcpConnection {
  /** The sequence number that is expected next from the peer. */
  readonly receivedTo: number;
  /** What has been received, and acknowledged, and that the program has not read. */
  readonly unread: StreamBytes;
  /** The sequence number behind all that the program has written. */
  readonly writtenTo: number;
  /** What the program has written, and the peer has not acknowledged. */
  readonly unacknowledged: StreamBytes;
  /** The last bytes of that: they were never sent. */
  readonly unsentBytes: number;
  /** Largest segment that the peer takes. */
  readonly mssClamp: number;
  readonly hasSelectiveAcks: boolean;
  /** Window scales of both directions, if they are in use. */
  readonly scale: { readonly send: number; readonly receive: number } | undefined;
  /** The time stamp of the next segment, if they are in use; 32 bits. */
  readonly timestamp: number | undefined;
  /** `struct tcp_repair_window` (include/uapi/linux/tcp.h). */
  readonly window: {
    readonly sendUpdate: number;
    readonly send: number;
    readonly largest: number;
    readonly receive: number;
    readonly receiveUpdate: number;
  };
}

export interface TcpOptions {
  readonly cork: boolean;
  readonly nodelay: boolean;
  readonly keepCount: number | undefined;
  readonly keepIdleSeconds: number | undefined;
  readonly keepIntervalSeconds: number | undefined;
}

export interface NetlinkSocket extends SocketCommon {
  readonly type: 'netlink';
  readonly protocol: number;
  readonly portId: number;
  readonly destinationPortId: number;
  readonly destinationGroup: number;
  /** Bitmap of the multicast groups, 32 bits a word. */
  readonly groups: readonly number[];
}
