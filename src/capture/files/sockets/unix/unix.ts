import { constants } from 'node:os';
import { readCred } from '../../../../linux/cred.ts';
import type { File } from '../../../../linux/fs.ts';
import type { Socket } from '../../../../linux/net.ts';
import { skbQueue } from '../../../../linux/skbuff.ts';
import { family, type Sock, socketInode, sockFlag, sockStruct, tcpState } from '../../../../linux/sock.ts';
import { showUnixName, type UnixSock, unixName, unixSock } from '../../../../linux/unix.ts';
import { type SocketState, socketState, type UnixSocket } from '../../../../model/socket.ts';
import { SOCK_DGRAM } from '../../../../system/abi.ts';
import { readable } from '../../../../vmcore/errors.ts';
import type { CaptureContext } from '../../context.ts';
import { type Holder, showHolder } from '../../holders/holders.ts';
import { FileRefusal } from '../../refusal.ts';
import { lateSocketOptions, shutdownOf, socketIdentity, socketOptions } from '../socket-options.ts';
import { journalSocket } from './journal.ts';
import { listenerOfLate, notePeerCredentials } from './unix-credentials.ts';
import { isConnection as isConnected, refuseLateTarget, socketFile } from './unix-file.ts';
import { unixQueue, unreadBytes } from './unix-queue.ts';

const { ECONNRESET } = constants.errno;

/** ` (/run/foo.sock)`, from the name of either end. */
function between(context: CaptureContext, ...ends: readonly UnixSock[]): string {
  const name = ends.map((end) => showUnixName(unixName(context.kernel, end))).find((text) => text !== '');
  return name === undefined ? '' : ` through ${name}`;
}

/**
 * A listening socket's queue holds a buffer for each connection that waits to be accepted; its sock is the
 * new end.
 */
function waitingEnds(context: CaptureContext, listener: Sock): bigint[] {
  return skbQueue(context.kernel, listener.receiveQueue).map((skb) => skb.sk);
}

interface Listener {
  readonly sock: bigint;
  readonly holders: readonly Holder[];
}

/** The listening socket that a connection waits on, if the other end has no socket of its own yet. */
export function listenerOf(context: CaptureContext, peer: bigint): Listener | undefined {
  const sock = context.of(Listeners).byWaiting.get(peer);
  return sock === undefined ? undefined : { sock, holders: context.system.holdersOfObject(sock) };
}

/**
 * Inode number of the socket that this one is connected to; 0 if it is not, or the other end has been closed.
 */
function peerInode(context: CaptureContext, unix: UnixSock, sock: Sock): number {
  const { kernel } = context;
  if (unix.peer === 0n) return 0;
  const peer = kernel.bind(sockStruct).at(unix.peer);
  const peerUnix = kernel.bind(unixSock).at(unix.peer);
  if (sockFlag(kernel, peer, 'dead')) {
    if (sock.sk_type === SOCK_DGRAM) noteLostPeer(context, unix, peerUnix, sock);
    return 0;
  }
  const holders = context.system.holdersOfObject(unix.peer);
  const via = between(context, unix, peerUnix);
  if (holders.length > 0) {
    const outsider = holders.find(({ isProtected }) => !isProtected);
    if (outsider !== undefined) {
      if (isServed(context, unix)) return hungUp(context, sock, outsider, via);
      throw new FileRefusal(
        `has a unix socket connected to ${showHolder(outsider)}${via}, which is not protected`,
      );
    }
    if (isSender(context, peerUnix, sock)) {
      throw new FileRefusal(`has a unix socket connected${via} to one that is connected to a third`);
    }
    // CRIU makes two that are connected to each other without their names.
    const isPair = peerUnix.peer === sock.address && unix.peer !== sock.address;
    if (!isPair) refuseLateTarget(context, unix.peer);
    context.join(
      [...context.system.holdersOfObject(sock.address), ...holders].map(({ pid }) => pid),
      'a unix socket',
    );
    return socketInode(kernel, peer.sk_socket);
  }
  if (context.system.isClosed(unix.peer)) return closedPeer(context, unix, sock, peer);
  const listener = listenerOf(context, unix.peer);
  if (listener === undefined) {
    throw new FileRefusal(`has a unix socket connected${via} to an end that no process holds`);
  }
  return waitingPeer(context, sock, peer, listener, via);
}

/** Peer 0 of a socket whose other end a process had that has ended: unix_release_sock(). */
function closedPeer(context: CaptureContext, unix: UnixSock, sock: Sock, peer: Sock): 0 {
  const { kernel, system } = context;
  if (sock.sk_type === SOCK_DGRAM) {
    noteLostPeer(context, unix, kernel.bind(unixSock).at(unix.peer), sock);
  } else if (skbQueue(kernel, peer.receiveQueue).length > 0) {
    const holders = system.holdersOfObject(sock.address);
    context.noteHolders(holders, `the error ${ECONNRESET} that waited on a socket (SO_ERROR) is lost`);
  }
  return 0;
}

/**
 * Whether the peer of a socket is connected to another one. It was connected later, then: afterwards nobody
 * but its own peer may connect to it (unix_may_send, net/unix/af_unix.c), and CRIU does not know the order.
 */
function isSender({ kernel }: CaptureContext, { peer }: UnixSock, sock: Sock): boolean {
  return peer !== 0n && peer !== sock.address && !sockFlag(kernel, kernel.bind(sockStruct).at(peer), 'dead');
}

/**
 * The first message to a socket that has been closed ends with ECONNREFUSED, and only then the sender is not
 * connected any more.
 */
function noteLostPeer(context: CaptureContext, unix: UnixSock, peer: UnixSock, sock: Sock): void {
  context.noteHolders(
    context.system.holdersOfObject(sock.address),
    `a datagram socket${between(context, unix, peer)} whose peer has gone is not connected any more: what is sent next ends with ENOTCONN, not ECONNREFUSED`,
  );
}

/**
 * Whether a socket is the server's end of a connection that was accepted from a listening socket which comes
 * back: it has the same address as that (unix_stream_connect in net/unix/af_unix.c shares it). Every server
 * must expect that a client goes.
 */
function isServed(context: CaptureContext, { addr }: UnixSock): boolean {
  const listeners = context.of(Listeners).byAddress.get(addr) ?? [];
  const isOurs = ({ isProtected }: Holder) => isProtected;
  return listeners.some((sock) => context.system.holdersOfObject(sock).every(isOurs));
}

/**
 * Addresses of listening unix sockets, by their `unix_address`, and by the new ends that wait to be accepted.
 * Of a socket that is damaged nobody is a client who comes back.
 */
class Listeners {
  readonly byAddress: ReadonlyMap<bigint, readonly bigint[]>;
  readonly byWaiting: ReadonlyMap<bigint, bigint>;

  constructor(context: CaptureContext) {
    const { kernel, system } = context;
    const Sock = kernel.bind(sockStruct);
    const isListening = (address: bigint): boolean => {
      const sock = Sock.at(address);
      return sock.family === family.unix && sock.state === tcpState.listen;
    };
    const listening = [...system.objectsOf('socket')].filter(
      (address) => readable(() => isListening(address)) ?? false,
    );
    this.byAddress = Map.groupBy(
      listening,
      (address) => readable(() => kernel.bind(unixSock).at(address).addr) ?? 0n,
    );
    this.byWaiting = new Map(
      listening.flatMap((address) =>
        (readable(() => waitingEnds(context, Sock.at(address))) ?? []).map((end) => [end, address] as const),
      ),
    );
  }
}

/** Peer 0 of an established socket: closed by the other side. */
function hungUp(context: CaptureContext, sock: Sock, client: Holder, via: string): 0 {
  context.noteHolders(
    context.system.holdersOfObject(sock.address),
    `the connection from ${showHolder(client)}${via} is closed: that process was not protected`,
  );
  return 0;
}

/**
 * A connection that has not been accepted yet: it is made again, which is possible only while nothing was
 * sent.
 */
function waitingPeer(
  context: CaptureContext,
  sock: Sock,
  peer: Sock,
  listener: Listener,
  via: string,
): number {
  const outsider = listener.holders.find(({ isProtected }) => !isProtected);
  if (outsider !== undefined) {
    throw new FileRefusal(
      `has a unix socket connected to ${showHolder(outsider)}${via}, which is not protected`,
    );
  }
  if (skbQueue(context.kernel, peer.receiveQueue).length > 0) {
    throw new FileRefusal(`has a unix socket${via} that has not been accepted yet, with data on its way`);
  }
  // CRIU connects as root, and so it would be taken for root's by who accepts it.
  const { euid } = readCred(context.kernel, peer.sk_peer_cred);
  if (euid !== 0) {
    throw new FileRefusal(`has a unix socket of user ${euid}${via} that has not been accepted yet`);
  }
  refuseLateTarget(context, listener.sock);
  const pids = [...context.system.holdersOfObject(sock.address), ...listener.holders].map(({ pid }) => pid);
  context.join(pids, 'a unix socket');
  return socketInode(context.kernel, context.kernel.bind(sockStruct).at(listener.sock).sk_socket);
}

function stateOf(sock: Sock): SocketState {
  if (sock.state === tcpState.listen) return 10;
  if (sock.state === tcpState.established) return 1;
  if (sock.state === tcpState.close) return 7;
  throw FileRefusal.damaged(`has a unix socket in the impossible state ${sock.state}`);
}

/** Connections of clients that have gone, or do not come back, are lost, with what these had sent. */
function noteWaiting(context: CaptureContext, sock: Sock, name: Uint8Array): void {
  const { kernel, system } = context;
  const lost = waitingEnds(context, sock).filter((end) => {
    const client = kernel.bind(unixSock).at(end).peer;
    return client === 0n || system.holdersOfObject(client).every(({ isProtected }) => !isProtected);
  });
  if (lost.length === 0) return;
  const bytes = lost.reduce((sum, end) => sum + unreadBytes(kernel, kernel.bind(sockStruct).at(end)), 0);
  const sent = bytes === 0 ? '' : `, with ${bytes} bytes that had been sent through them`;
  context.noteHolders(
    system.holdersOfObject(sock.address),
    `${lost.length} connections to ${showUnixName(name)} that waited to be accepted are lost${sent}`,
  );
}

/**
 * A unix socket with its queue and its place among the others. Throws a FileRefusal if it is connected to a
 * process that is not protected, or carries what cannot be carried.
 */
export function captureUnix(context: CaptureContext, file: File, socket: Socket, sock: Sock): UnixSocket {
  const { kernel } = context;
  const unix = kernel.bind(unixSock).at(sock.address);
  const name = unixName(kernel, unix);
  const options = socketOptions(kernel, socket, sock);
  const state = stateOf(sock);
  if ((unix.oob_skb ?? 0n) !== 0n) throw new FileRefusal('has a unix socket with out-of-band data');
  const isListening = state === tcpState.listen;
  if (isListening) noteWaiting(context, sock, name);
  const queue = isListening ? [] : unixQueue(context, sock);
  if (queue.length > 0 && options.passCredentials) {
    throw new FileRefusal(
      'has a unix socket with data whose sender would be reported as another (SO_PASSCRED)',
    );
  }
  const journal = journalSocket(context, unix, sock, (peer) => unreadBytes(kernel, peer));
  const peer = isListening || journal !== undefined ? 0 : peerInode(context, unix, sock);
  const socketsFile = socketFile(context, sock, unix, name);
  const listener =
    isListening && socketsFile.ownMake !== undefined ? listenerOfLate(context, sock) : undefined;
  notePeerCredentials(context, sock, name, listener);
  const isConnection = isConnected(sock) && journal === undefined;
  const isClosed = isConnection && peer === 0;
  if (isConnection && name.length > 0 && !context.of(Listeners).byAddress.has(unix.addr)) {
    context.noteHolders(
      context.system.holdersOfObject(sock.address),
      `the connected socket ${showUnixName(name)} has lost its name`,
    );
  }
  return {
    type: 'unix',
    ...context.common(file),
    ...socketIdentity(kernel, file),
    socketType: sock.sk_type,
    state: journal === undefined ? state : socketState.close,
    options,
    lateOptions: lateSocketOptions(kernel, socket, sock),
    shutdown: isClosed ? 3 : journal === undefined ? shutdownOf(sock) : 0,
    backlog: isListening ? sock.sk_max_ack_backlog : 0,
    peerInode: peer,
    name,
    ...socketsFile,
    listener,
    queue,
    journal,
  };
}
