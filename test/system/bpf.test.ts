import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { holdBackPackets, inSpiteOfSignals } from '../../src/system/bpf.ts';
import { cgroups } from '../criu/restore/cgroups.ts';

const needsRoot = {
  skip:
    cgroups === undefined || process.getuid?.() !== 0 ? 'only root may hold packets of a cgroup back' : false,
};
const MARK = 0xc114;

/** Connects from inside the cgroup, with and without the mark; who listens is outside. */
const CONNECT = `
import socket, sys
open(sys.argv[1] + '/cgroup.procs', 'w').write('0')
for mark in (0, ${MARK}):
    client = socket.socket()
    client.settimeout(float(sys.argv[3]))
    client.setsockopt(socket.SOL_SOCKET, 36, mark)
    try:
        client.connect(('127.0.0.1', int(sys.argv[2])))
        print('connected')
    except TimeoutError:
        print('nothing')
`;

test(
  'packets from a cgroup are held back, but those with a mark, until they are let go',
  needsRoot,
  async () => {
    const directory = join(cgroups ?? '', `otherworld-test-bpf-${process.pid}`);
    mkdirSync(directory);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = typeof address === 'object' ? String(address?.port) : '';
    const connect = (seconds: string): string =>
      spawnSync('python3', ['-I', '-S', '-c', CONNECT, directory, port, seconds], { encoding: 'utf8' })
        .stdout;
    try {
      const letGo = holdBackPackets(directory, MARK);
      assert.equal(connect('0.3'), 'nothing\nconnected\n');
      letGo();
      assert.equal(connect('20'), 'connected\nconnected\n');
      assert.throws(() => holdBackPackets('/', MARK), { call: 'bpf' });
    } finally {
      server.close();
      rmdirSync(directory);
    }
  },
);

test('a program is loaded though signals come, unless they come all the time', () => {
  const { EAGAIN, EPERM } = constants.errno;
  const gives = (results: readonly number[]) => {
    let tries = 0;
    const result = inSpiteOfSignals(() => results[tries++] ?? -EAGAIN);
    return { result, tries };
  };
  assert.deepEqual(gives([-EAGAIN, -EAGAIN, 7]), { result: 7, tries: 3 });
  assert.deepEqual(gives([-EPERM, 7]), { result: -EPERM, tries: 1 });
  assert.equal(gives([]).result, -EAGAIN);
});
