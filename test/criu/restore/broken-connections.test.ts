// What a process sees of a connection that is broken before it runs: the same as of one that its peer has
// reset.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { suite, test } from 'node:test';
import { breakConnections } from '../../../src/criu/restore/broken-connections.ts';

/** Tells its descriptor, has its peer reset it if it is told to, and can say what a call comes to. */
const GOES = `print(s.fileno(), flush=True)
sys.stdin.readline()
if how == 'reset':
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    peer.close()
def seen(what, call):
    try:
        print(what, call())
    except OSError as error:
        print(what, error.errno)
`;

/**
 * Prints the descriptor of a connection and waits until it is broken. Then prints, a line each, what poll(2)
 * says of it and what it says of being used; with `reset` it has the peer break it instead.
 */
const SUBJECT = `
import select, socket, struct, sys
how, address, first = sys.argv[1:]
listener = socket.create_server((address, 0), family=socket.AF_INET6 if ':' in address else socket.AF_INET)
s = socket.create_connection(listener.getsockname()[:2])
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, first == 'send')
peer, _ = listener.accept()
epoll = select.epoll()
epoll.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
epoll.poll(0)
${GOES}print('epoll', [hex(events) for _, events in epoll.poll(20)])
if first == 'option':
    seen('SO_ERROR', lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
for i in range(2):
    seen(first, lambda: s.recv(10) if first != 'send' else s.send(b'x'))
for i in range(2):
    seen('send', lambda: s.send(b'x'))
    seen('recv', lambda: s.recv(10))
seen('peer', s.getpeername)
seen('shutdown', lambda: s.shutdown(socket.SHUT_RDWR))
seen('SO_ERROR', lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
seen('SO_REUSEADDR', lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
`;

/** Asks once, and connects again to the same listener: at once, or when the socket has been let go of. */
const AGAIN = `
import ctypes, socket, struct, sys
how, lets_go = sys.argv[1:]
listener = socket.create_server(('127.0.0.1', 0))
s = socket.create_connection(listener.getsockname())
peer, _ = listener.accept()
${GOES}seen('recv', lambda: s.recv(10))
if lets_go == 'yes':
    print('AF_UNSPEC', ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16))
seen('connect', lambda: s.connect(listener.getsockname()))
seen('send', lambda: s.send(b'x'))
s.settimeout(1)
seen('recv', lambda: s.recv(10) if lets_go == 'no' else 'is not asked')
`;

/**
 * Connects to a listener whose queue is full until a connection stays in the making. Then asks what became of
 * it, or makes room and connects once more with the same socket.
 */
const CONNECTING = `
import select, socket, sys
listener = socket.create_server(('127.0.0.1', 0), backlog=0)
made = []
def connecting():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(listener.getsockname())
    return s
SYN_SENT = 2
s = connecting()
while s.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1)[0] != SYN_SENT:
    made.append(s)
    s = connecting()
poll = select.poll()
poll.register(s, select.POLLOUT)
print(s.fileno(), flush=True)
sys.stdin.readline()
if sys.argv[1] == 'asks':
    print(len(poll.poll(20000)), s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
else:
    for _ in made:
        listener.accept()
    s.setblocking(True)
    s.connect(listener.getsockname())
    s.send(b'hello')
    print(listener.accept()[0].recv(10))
`;

/** Has a socket without a connection, which becomes one that was reset. */
const UNMADE = `
import socket, sys
s = socket.socket(socket.AF_INET6 if sys.argv[1] == '::1' else socket.AF_INET)
s.setblocking(sys.argv[2] == 'blocks')
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, s.getblocking())
how = 'broken'
${GOES}print(s.getsockname()[0])
seen('recv', lambda: s.recv(10))
seen('send', lambda: s.send(b'x'))
seen('recv', lambda: s.recv(10))
seen('peer', s.getpeername)
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
`;

/** The same, and was being made: its program tries again. */
const UNMADE_CONNECTING = `
import socket, sys
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s = socket.socket(listener.family)
how = 'broken'
${GOES}print(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
s.connect(listener.getsockname())
s.send(b'hello')
print(listener.accept()[0].recv(10))
`;

async function ran(
  program: string,
  given: readonly string[],
  as: 'connected' | 'connecting' | undefined,
  unmade?: 2 | 10,
): Promise<string> {
  const child = spawn('python3', ['-I', '-S', '-c', program, ...given], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    const pid = child.pid ?? assert.fail('it does not run');
    const lines = createInterface({ input: child.stdout });
    const said: string[] = [];
    const [line] = await once(lines, 'line');
    lines.on('line', (more) => said.push(more));
    if (as !== undefined) breakConnections([{ pid, fd: Number(line), as, unmade }]);
    child.stdin.end('\n');
    await once(lines, 'close');
    return said.join('\n');
  } finally {
    child.kill('SIGKILL');
  }
}

suite('a connection that is lost', { skip: process.getuid?.() !== 0 }, () => {
  for (const address of ['127.0.0.1', '::1']) {
    for (const first of ['recv', 'send', 'option']) {
      test(`is to its process, which begins with ${first}, as one that was reset (${address})`, async () => {
        const [seen, reset] = await Promise.all([
          ran(SUBJECT, ['broken', address, first], 'connected'),
          ran(SUBJECT, ['reset', address, first], undefined),
        ]);
        assert.equal(seen, reset);
        assert.match(seen, new RegExp(`^SO_REUSEADDR ${first === 'send' ? 1 : 0}$`, 'm'));
        assert.match(seen, first === 'option' ? /^SO_ERROR 104$/m : new RegExp(`^${first} 104$`, 'm'));
      });
    }
  }

  test('is connected again otherwise than one that was reset: without an error, and to no use', async () => {
    const [reset, broken] = [
      "recv 104\nconnect 106\nsend 32\nrecv b''",
      "recv 104\nconnect None\nsend 32\nrecv b''",
    ];
    assert.equal(await ran(AGAIN, ['reset', 'no'], undefined), reset);
    assert.equal(await ran(AGAIN, ['broken', 'no'], 'connected'), broken);
  });

  test('is of use again as one that was reset is: when its process has let go of it', async () => {
    const [seen, asReset] = await Promise.all([
      ran(AGAIN, ['broken', 'yes'], 'connected'),
      ran(AGAIN, ['reset', 'yes'], undefined),
    ]);
    assert.equal(seen, asReset);
    assert.match(seen, /^AF_UNSPEC 0\nconnect None\nsend 1$/m);
  });

  test('and was being made has failed, by what its process is told', async () => {
    assert.equal(await ran(CONNECTING, ['asks'], 'connecting'), '1 104');
  });

  test('and was being made is made by the call that is made again', async () => {
    assert.equal(await ran(CONNECTING, ['again'], 'connecting'), "b'hello'");
  });

  for (const [address, family] of [
    ['127.0.0.1', 2],
    ['::1', 10],
  ] as const) {
    test(`and was not made by CRIU is to its process as one that was reset (${address})`, async () => {
      for (const blocking of ['blocks', 'does not']) {
        const seen = await ran(UNMADE, [address, blocking], 'connected', family);
        const nobody = family === 2 ? '0.0.0.0' : '::';
        assert.equal(
          seen,
          `${nobody}\nrecv 104\nsend 32\nrecv b''\npeer 107\n${blocking === 'blocks' ? 1 : 0}`,
        );
      }
    });

    test(`and was not made by CRIU, and was being made, can be tried again (${address})`, async () => {
      assert.equal(await ran(UNMADE_CONNECTING, [address], 'connecting', family), "104\nb'hello'");
    });
  }

  test('and cannot be broken is an error: its process must not run', () => {
    assert.throws(
      () => breakConnections([{ pid: process.pid, fd: 990, as: 'connected' }]),
      /^Error: the connection of fd 990 of process \d+, which is lost, cannot be reset: .*EBADF/,
    );
  });
});
