import type { FileIdentity } from '../../src/model/open-file.ts';
import { socketState, type UnixSocket } from '../../src/model/socket.ts';
import { SOCK_STREAM } from '../../src/system/abi.ts';

const identity: FileIdentity = {
  ...{ fileSystem: 'tmpfs', onDisk: false, inode: 7, generation: 0, mode: 0o140640, uid: 5, gid: 6 },
  ...{ sizeBytes: 0, rdev: 0 },
};
const directory = { ...identity, inode: 6, mode: 0o40755 };
/** What this program makes for the socket. */
export const ownMake = { path: '/run/web/s', identity, directory };

/** A socket that listens by the name `/var/run/web/s`, and is bound late. */
export function socketOf(id: number, over: Partial<UnixSocket>): UnixSocket {
  const options: UnixSocket['options'] = {
    ...{ sendBufferBytes: 1, receiveBufferBytes: 1, bufferLock: 0, sendTimeoutMicroseconds: 0 },
    ...{ receiveTimeoutMicroseconds: 0, reuseAddress: false, reusePort: false, priority: 0 },
    ...{ receiveLowWatermark: 1, mark: 0, passCredentials: false, passSecurity: false, dontRoute: false },
    ...{ noCheck: false, broadcast: false, keepAlive: false, oobInline: false, lingerSeconds: undefined },
    ...{ boundDevice: undefined, filter: [] },
  };
  return {
    ...{ type: 'unix', id, flags: 2, inode: id, uid: 0, gid: 0, options, lateOptions: [], shutdown: 0 },
    owner: { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 },
    ...{ socketType: SOCK_STREAM, state: socketState.listen, backlog: 9, peerInode: 0, queue: [] },
    ...{ name: Buffer.from('/var/run/web/s'), nameDirectory: undefined, file: identity, deleted: false },
    ...{ ownMake, journal: undefined },
    ...over,
  };
}
