import type { InetSocket, TcpConnection } from '../../src/model/socket.ts';

const none = { data: [], bytes: 0 };
const connection: TcpConnection = {
  ...{ receivedTo: 1, unread: none, writtenTo: 2, unacknowledged: none, unsentBytes: 0, mssClamp: 1460 },
  ...{ hasSelectiveAcks: false, scale: undefined, timestamp: undefined },
  window: { sendUpdate: 0, send: 0, largest: 0, receive: 0, receiveUpdate: 0 },
};

/** A TCP socket at port 80 of an address, connected to port 4000 of nobody's, or not. */
export function socketAt(sourceAddress: readonly number[], connected = true): InetSocket {
  const options: InetSocket['options'] = {
    ...{ sendBufferBytes: 1, receiveBufferBytes: 1, bufferLock: 0, sendTimeoutMicroseconds: 0 },
    ...{ receiveTimeoutMicroseconds: 0, reuseAddress: false, reusePort: false, priority: 0 },
    ...{ receiveLowWatermark: 1, mark: 0, passCredentials: false, passSecurity: false, dontRoute: false },
    ...{ noCheck: false, broadcast: false, keepAlive: false, oobInline: false, lingerSeconds: undefined },
    ...{ boundDevice: undefined, filter: [] },
  };
  return {
    ...{ type: 'inet', id: 1, flags: 2, inode: 7, uid: 0, gid: 0, socketType: 1, state: 1, options },
    owner: { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 },
    ...{ lateOptions: [], shutdown: 0, family: sourceAddress.length === 4 ? 2 : 10, protocol: 6 },
    ...{ sourceAddress: Uint8Array.from(sourceAddress), sourcePort: 80, destinationPort: 4000 },
    ...{ destinationAddress: new Uint8Array(sourceAddress.length), backlog: 0, v6only: false },
    ...{ freebind: false, pktinfo: false, tos: 0, ttl: 0, interfaceName: undefined, tcp: undefined },
    connection: connected ? connection : undefined,
    connecting: undefined,
    broken: undefined,
  };
}
