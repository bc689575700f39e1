import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lateNamesOf } from '../../../../src/criu/images/plan/late-names.ts';
import type { FileIdentity } from '../../../../src/model/open-file.ts';
import { socketState, type UnixSocket } from '../../../../src/model/socket.ts';
import { SOCK_DGRAM, SOCK_STREAM } from '../../../../src/system/abi.ts';

const identity: FileIdentity = {
  ...{ fileSystem: 'tmpfs', onDisk: false, inode: 7, generation: 0, mode: 0o140640, uid: 5, gid: 6 },
  ...{ sizeBytes: 0, rdev: 0 },
};
const directory = { ...identity, inode: 6, mode: 0o40755 };
const late = { path: '/run/web/s', identity, directory };

function socketOf(id: number, over: Partial<UnixSocket>): UnixSocket {
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
    ...{ late, journal: undefined },
    ...over,
  };
}

const groupWith = (...files: readonly UnixSocket[]): Parameters<typeof lateNamesOf>[0] => {
  const descriptors = files.map(({ id }) => ({ fd: id + 2, fileId: id, closeOnExec: false }));
  const processes = [{ pid: 500, filesId: 1 }];
  return { files: { files, tables: [{ filesId: 1, descriptors }] }, processes };
};

test('sockets that CRIU does not bind are bound later, by one who has them, and listen if they did', () => {
  const bound = { socketType: SOCK_DGRAM, state: socketState.established, backlog: 0 };
  const group = groupWith(
    socketOf(1, {}),
    socketOf(2, { late: undefined }),
    // Accepted from the first: it shares its name, and was bound to none.
    socketOf(3, { state: socketState.established, backlog: 0 }),
    socketOf(4, { ...bound, name: Buffer.from('s') }),
  );
  assert.deepEqual(lateNamesOf(group), [
    { pid: 500, fd: 3, name: '/var/run/web/s', ...late, backlog: 9 },
    { pid: 500, fd: 6, name: 's', ...late },
  ]);
});

test('a socket that nobody has could not be bound', () => {
  const { files, processes } = groupWith(socketOf(1, {}));
  assert.throws(() => lateNamesOf({ files: { ...files, tables: [] }, processes }), /nobody has the socket/);
});
