import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { suite, test } from 'node:test';
import { resetConnections } from '../../../src/criu/restore/reset-connections.ts';

const SUBJECT = `
import socket, sys, time
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
print(s.fileno(), flush=True)
time.sleep(60)
`;

suite('a connection of a group that does not come back', { skip: process.getuid?.() !== 0 }, () => {
  /** How the peer of a process that is killed sees its connection end. */
  async function ended(isMember: boolean): Promise<string> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' ? String(address?.port) : '';
    const accepted = once(server, 'connection');
    const child = spawn('python3', ['-I', '-S', '-c', SUBJECT, port], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pid = child.pid ?? assert.fail('it does not run');
    const [[line], [peer]] = await Promise.all([once(child.stdout, 'data'), accepted]);
    const how = Promise.race([
      once(peer, 'end').then(() => 'end'),
      once(peer, 'error').then(([error]) => String(error.code)),
    ]).catch((error: NodeJS.ErrnoException) => String(error.code));
    peer.resume();
    const socket = { pid, fd: Number(line), uid: 0, gid: 0, options: [] };
    const plan = {
      connections: { count: 1, addresses: [], connects: [] },
      sockets: [socket, { ...socket, fd: 900 }],
    };
    resetConnections(plan, isMember ? [pid] : []);
    child.kill('SIGKILL');
    const result = await how;
    server.close();
    return result;
  }

  test('ends with a reset, as that of a machine that has crashed', async () => {
    assert.equal(await ended(true), 'ECONNRESET');
  });

  test('is left alone if its process is none of the group', async () => {
    assert.equal(await ended(false), 'end');
  });
});
