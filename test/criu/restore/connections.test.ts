// Changes the network: in a network namespace of its own, for which the file runs itself once more.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { createConnection, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, suite, test } from 'node:test';
import type { RestorePlan } from '../../../src/criu/images/plan/restore-plan.ts';
import { connectAnew } from '../../../src/criu/restore/connect-anew.ts';
import { ip, LAST_METRIC } from '../../../src/criu/restore/connection-network.ts';
import { prepareConnections } from '../../../src/criu/restore/connections.ts';
import { INTERFACE } from '../../../src/criu/restore/names.ts';
import type { Where } from '../../../src/criu/restore/own-make/open-directory.ts';
import { cgroups } from './cgroups.ts';

const needsRoot = {
  skip: cgroups === undefined || process.getuid?.() !== 0 ? 'only root may do this' : false,
};
const mtu = (): string => readFileSync('/sys/class/net/lo/mtu', 'utf8').trim();

const CONNECT = `
import socket, sys
open(sys.argv[1] + '/cgroup.procs', 'w').write('0')
try:
    socket.create_connection(('127.0.0.1', int(sys.argv[2])), float(sys.argv[3]))
    print('connected')
except TimeoutError:
    print('nothing')
`;

const LISTEN = `
import socket, sys
open(sys.argv[1] + '/cgroup.procs', 'w').write('0')
one = socket.socket()
one.bind(('127.0.0.1', 0))
one.listen()
print(one.getsockname()[1], flush=True)
sys.stdin.readline()
`;

const CONNECTING = `
import socket, sys
open(sys.argv[1] + '/cgroup.procs', 'w').write('0')
one = socket.socket()
print(one.fileno(), flush=True)
sys.stdin.readline()
state = {2: 'SYN_SENT'}.get(one.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1)[0])
print('blocking' if one.getblocking() else 'not blocking', state, sep=', ', flush=True)
one.connect(('127.0.0.1', int(sys.argv[2])))
print('connected', flush=True)
sys.stdin.readline()
`;

const SOCKETS = `
import socket, sys
all = [socket.socket() for _ in range(int(sys.argv[1]))]
print(' '.join(str(one.fileno()) for one in all), flush=True)
sys.stdin.readline()
`;

const INSIDE = 'OTHERWORLD_TEST_NETWORK';
const isInside = process.env[INSIDE] !== undefined;

test('connections are prepared', { skip: isInside || needsRoot.skip }, () => {
  const script = 'ip link set lo up && exec "$0" --test "$1"';
  const env = { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: undefined };
  const args = ['--net', 'sh', '-c', script, process.execPath, import.meta.filename];
  const { status, stdout, stderr } = spawnSync('unshare', args, { env, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

suite('what TCP connections need to be made again', { skip: !isInside }, () => {
  const directory = join(cgroups ?? '', `otherworld-test-connections-${process.pid}`);
  let server: Server;
  let port = '';
  const prepare = (connections: RestorePlan['connections'], inside?: Where) =>
    prepareConnections({ plan: { connections, sockets: [] }, cgroup: directory, inside });
  const connect = (seconds: number): string =>
    spawnSync('python3', ['-I', '-S', '-c', CONNECT, directory, port, String(seconds)], {
      encoding: 'utf8',
    }).stdout.trim();

  before(async () => {
    mkdirSync(directory);
    server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    port = typeof address === 'object' ? String(address?.port) : '';
  });
  after(() => {
    server.close();
    rmdirSync(directory);
  });

  test('is there from when CRIU makes something until all is made', () => {
    const usual = mtu();
    const resource = prepare({ count: 1, addresses: [], connects: [] });
    assert.equal(connect(20), 'connected');
    resource.begin?.();
    assert.equal(connect(0.3), 'nothing');
    assert.notEqual(mtu(), usual);
    assert.deepEqual(resource.ready?.(), []);
    assert.equal(connect(20), 'connected');
    assert.equal(mtu(), usual);
    assert.deepEqual(resource.finish(true), []);
  });

  test('leaves the loopback of a system that runs as it is, and lets nothing in either', async () => {
    const usual = mtu();
    const inside = { pid: process.pid, remade: new Set<string>() };
    const listener = spawn('python3', ['-I', '-S', '-c', LISTEN, directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      const lines = createInterface({ input: listener.stdout })[Symbol.asyncIterator]();
      const to = Number((await lines.next()).value);
      const reach = (milliseconds: number): Promise<string> =>
        new Promise((resolve) => {
          const socket = createConnection({ port: to, host: '127.0.0.1' });
          const end = (what: string) => {
            socket.destroy();
            resolve(what);
          };
          socket.once('connect', () => end('connected')).once('error', () => end('error'));
          socket.setTimeout(milliseconds, () => end('nothing'));
        });
      const resource = prepare({ count: 1, addresses: [], connects: [] }, inside);
      resource.begin?.();
      assert.equal(mtu(), usual);
      assert.equal(await reach(300), 'nothing');
      assert.deepEqual(resource.ready?.(), []);
      assert.equal(await reach(20_000), 'connected');
      assert.deepEqual(resource.finish(true), []);
    } finally {
      listener.kill('SIGKILL');
      await once(listener, 'exit');
    }
  });

  test('is gone if the group does not come back, or if it cannot be made', () => {
    const usual = mtu();
    const resource = prepare({ count: 1, addresses: [], connects: [] });
    resource.begin?.();
    assert.deepEqual(resource.finish(false), []);
    assert.equal(mtu(), usual);
    const wrong = prepare({ count: 1, addresses: ['no address'], connects: [] });
    assert.throws(() => wrong.begin?.(), /^Error: its TCP connections cannot be made again: ip: /);
    assert.equal(mtu(), usual);
    assert.equal(connect(20), 'connected');
  });

  test('has who was connecting do so again: it is as if its first segment had been lost', async () => {
    const subject = spawn('python3', ['-I', '-S', '-c', CONNECTING, directory, port], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      const lines = createInterface({ input: subject.stdout })[Symbol.asyncIterator]();
      const line = async (): Promise<string> => String((await lines.next()).value);
      const fd = Number(await line());
      const target = { family: 2, address: '7f000001', port: Number(port) } as const;
      const connects = [{ pid: subject.pid ?? 0, fd, flags: 2, ...target }];
      const resource = prepare({ count: 0, addresses: [], connects });
      resource.begin?.();
      assert.deepEqual(resource.ready?.(), []);
      subject.stdin.write('go\n');
      assert.equal(await line(), 'blocking, SYN_SENT');
      assert.equal(await line(), 'connected');
      assert.deepEqual(resource.finish(true), []);
    } finally {
      subject.kill('SIGKILL');
      await once(subject, 'exit');
    }
  });

  test('is a way of its own to one peer for each that connects to it, and nothing of it is left', async () => {
    const [peer, addresses] = ['192.0.2.9', ['10.0.2.15', '10.0.2.16']];
    // In the place of the interface that leads nowhere: not each kernel on which this runs has its kind.
    const made = [
      `link add ${INTERFACE} type veth peer name other0`,
      ...['other0', INTERFACE].map((name) => `link set ${name} up`),
      ...addresses.map((address) => `address add ${address}/32 dev ${INTERFACE}`),
      `route add 0.0.0.0/0 dev ${INTERFACE} metric ${LAST_METRIC}`,
    ];
    const routes = (): string => spawnSync('ip', ['route', 'show'], { encoding: 'utf8' }).stdout;
    ip(made);
    const before = routes();
    const subject = spawn('python3', ['-I', '-S', '-c', SOCKETS, '3'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      const lines = createInterface({ input: subject.stdout })[Symbol.asyncIterator]();
      const fds = String((await lines.next()).value).split(' ');
      const target = { family: 2, address: 'c0000209', port: 80, flags: 2, pid: subject.pid ?? 0 } as const;
      const from = [...addresses, addresses[0] ?? ''];
      const connects = fds.map((fd, i) => {
        const route = { to: peer, from: from[i] ?? '' };
        return { ...target, fd: Number(fd), route };
      });
      assert.deepEqual(connectAnew(connects), []);
      assert.equal(routes(), before);
      const { stdout } = spawnSync('ss', ['-tnH', 'state', 'syn-sent'], { encoding: 'utf8' });
      const own = stdout.match(/\S+(?=:\d+ +192\.0\.2\.9:80)/g) ?? [];
      assert.deepEqual(own.toSorted(), from.toSorted(), stdout);
      ip([`link set ${INTERFACE} down`]);
      const [problem = ''] = connectAnew(connects.slice(0, 1));
      assert.match(problem, /^the connection of fd \d+ of process \d+ cannot be begun anew \(ip: /);
    } finally {
      subject.kill('SIGKILL');
      await once(subject, 'exit');
      ip([`link delete ${INTERFACE}`]);
    }
  });

  test('is not there if a socket cannot connect', () => {
    const target = { family: 2, address: '7f000001', port: Number(port) } as const;
    const connects = [{ pid: process.pid, fd: 9000, flags: 2, ...target }];
    const resource = prepare({ count: 0, addresses: [], connects });
    resource.begin?.();
    const [problem = ''] = resource.ready?.() ?? [];
    assert.match(problem, /^the connection of fd 9000 of process \d+ cannot be begun anew \(EBADF/);
  });

  test('is nothing for a group without any', () => {
    const none = prepare(undefined);
    none.begin?.();
    assert.equal(connect(20), 'connected');
    assert.deepEqual(none.finish(true), []);
  });
});
