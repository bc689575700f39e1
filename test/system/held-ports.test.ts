// Changes which ports the kernel chooses: in a network namespace of its own, for which the file runs itself
// once more.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { holdPorts } from '../../src/system/held-ports.ts';

const needsRoot = { skip: process.getuid?.() !== 0 ? 'only root may do this' : false };
const INSIDE = 'OTHERWORLD_TEST_NETWORK';
const isInside = process.env[INSIDE] !== undefined;

const FIRST = 50_000;
const COUNT = 4;
const HELD = [0, 1, 2].map((i) => FIRST + i);
const FREE = FIRST + 3;

/** What the kernel chooses, as often as it does, and then who can have a held port. */
const CHOOSE = `
import errno, socket, struct, sys
first, count = int(sys.argv[1]), int(sys.argv[2])
listener = socket.create_server(('127.0.0.1', 8080))
def ports(each):
    kept, found = [], []
    for _ in range(count):
        one = socket.socket()
        kept.append(one)
        try:
            each(one)
            found.append(one.getsockname()[1])
        except OSError:
            pass
    for one in kept:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        one.close()
    return sorted(found)
print('connect', *ports(lambda one: one.connect(('127.0.0.1', 8080))))
print('bind', *ports(lambda one: one.bind(('0.0.0.0', 0))))
def listens(reuse):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        one.bind(('0.0.0.0', first))
        one.listen()
def repaired():
    with socket.socket() as one:
        one.setsockopt(socket.SOL_TCP, 19, 1)
        one.bind(('127.0.0.1', first))
        one.connect(('127.0.0.1', 9))
for name, call in {'server': lambda: listens(1), 'strict': lambda: listens(0), 'repaired': repaired}.items():
    try:
        call()
        print(name, 'ok')
    except OSError as error:
        print(name, errno.errorcode[error.errno])
`;

function chosen(): Record<string, string> {
  const args = ['-I', '-S', '-c', CHOOSE, String(FIRST), String(COUNT)];
  const { stdout, stderr } = spawnSync('python3', args, { encoding: 'utf8', timeout: 20_000 });
  assert.equal(stderr, '');
  return Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map((line) => [line.split(' ', 1)[0], line.slice(line.indexOf(' ') + 1)]),
  );
}

test('ports are held', { skip: isInside || needsRoot.skip }, () => {
  const env = { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: undefined };
  const script = 'ip link set lo up && exec "$0" --test "$1"';
  const args = ['--net', 'sh', '-c', script, process.execPath, import.meta.filename];
  const { status, stdout, stderr } = spawnSync('unshare', args, { env, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

suite('a port of a connection that is not there', { skip: !isInside }, () => {
  const end = (address: readonly number[], port: number) => ({ address: Uint8Array.from(address), port });
  const [loopback, elsewhere] = [
    [127, 0, 0, 1],
    [192, 0, 2, 9],
  ] as const;
  const ends = [
    end(loopback, FIRST),
    end(elsewhere, FIRST + 1),
    end([0x20, 1, ...new Array(14).fill(9)], FIRST + 2),
  ];
  const held: number[] = [];
  before(() => {
    writeFileSync('/proc/sys/net/ipv4/ip_local_port_range', `${FIRST} ${FIRST + COUNT - 1}`);
  });
  after(() => {
    for (const fd of held.splice(0)) closeSync(fd);
  });

  test('is chosen for others as long as nobody holds it', () => {
    const { connect, bind } = chosen();
    assert.deepEqual([connect, bind], [[...HELD, FREE].join(' '), [...HELD, FREE].join(' ')]);
  });

  test('is not chosen, and is there for servers and for what is repaired', () => {
    held.push(...holdPorts([...ends, ...ends]));
    assert.equal(held.length, ends.length);
    const { connect, bind, ...others } = chosen();
    assert.equal(connect, String(FREE));
    // One of IPv6 alone is another one there.
    assert.deepEqual(bind?.split(' ').map(Number), [FIRST + 2, FREE]);
    assert.deepEqual(others, { server: 'ok', strict: 'EADDRINUSE', repaired: 'ok' });
  });

  test('that somebody has who lets nobody else have it is left to him', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(FREE, '127.0.0.1', resolve));
    assert.deepEqual(holdPorts([end(loopback, FREE)]), []);
    server.close();
  });
});
