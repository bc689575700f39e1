import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lateNamesOf } from '../../../../src/criu/images/plan/late-names.ts';
import { socketState, type UnixSocket } from '../../../../src/model/socket.ts';
import { SOCK_DGRAM } from '../../../../src/system/abi.ts';
import { ownMake, socketOf } from '../../unix-sockets.ts';

const groupWith = (...files: readonly UnixSocket[]): Parameters<typeof lateNamesOf>[0] => {
  const descriptors = files.map(({ id }) => ({ fd: id + 2, fileId: id, closeOnExec: false }));
  const processes = [{ pid: 500, filesId: 1 }];
  return { files: { files, tables: [{ filesId: 1, descriptors }] }, processes };
};

test('sockets that CRIU does not bind are bound later, by one who has them, and listen if they did', () => {
  const bound = { socketType: SOCK_DGRAM, state: socketState.established, backlog: 0 };
  const group = groupWith(
    socketOf(1, {}),
    socketOf(2, { ownMake: undefined }),
    // Accepted from the first: it shares its name, and was bound to none.
    socketOf(3, { state: socketState.established, backlog: 0 }),
    socketOf(4, { ...bound, name: Buffer.from('s') }),
  );
  assert.deepEqual(lateNamesOf(group), [
    { pid: 500, fd: 3, name: '/var/run/web/s', ...ownMake, backlog: 9 },
    { pid: 500, fd: 6, name: 's', ...ownMake },
  ]);
});

test('a socket is made to listen by the process that had it do so, if that has it still', () => {
  const { files } = groupWith(socketOf(1, { listener: 502 }));
  const processes = [500, 501, 502].map((pid) => ({ pid, filesId: 1 }));
  const [of502] = lateNamesOf({ files, processes });
  assert.deepEqual([of502?.pid, of502?.fd], [502, 3]);
  const [of500] = lateNamesOf({ files, processes: processes.slice(0, 2) });
  assert.deepEqual([of500?.pid, of500?.fd], [500, 3]);
});

test('a socket that nobody has could not be bound', () => {
  const { files, processes } = groupWith(socketOf(1, {}));
  assert.throws(() => lateNamesOf({ files: { ...files, tables: [] }, processes }), /nobody has the socket/);
});
