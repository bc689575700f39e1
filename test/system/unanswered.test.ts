// Looks at what the kernel answers: in a network namespace of its own, for which the file runs itself once
// more.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { suite, test } from 'node:test';
import { askEnd, resetHalfOpen, TcpEndsNow } from '../../src/system/tcp-ask.ts';
import { leaveUnanswered, type TcpEnds } from '../../src/system/unanswered.ts';

const needsRoot = { skip: process.getuid?.() !== 0 ? 'only root may do this' : false };
const INSIDE = 'OTHERWORLD_TEST_NETWORK';
const isInside = process.env[INSIDE] !== undefined;

/**
 * Two ends of a connection, of which one vanishes as with its kernel (TCP_REPAIR: without a word), and is
 * made again with its numbers. What the other one sends meanwhile has no socket.
 */
const ENDS = `
import socket, struct, sys
REPAIR, QUEUE, SEQ, OPTIONS = 19, 20, 21, 22
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
def made():
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return one
listener = made()
listener.bind((sys.argv[1], 0))
listener.listen()
client = socket.create_connection(listener.getsockname()[:2])
server = listener.accept()[0]
own, peer = server.getsockname(), server.getpeername()
print(own[1], peer[1], flush=True)
client.settimeout(0.5)
def vanish():
    server.setsockopt(socket.SOL_TCP, REPAIR, 1)
    numbers = []
    for queue in (1, 2):
        server.setsockopt(socket.SOL_TCP, QUEUE, queue)
        numbers.append(server.getsockopt(socket.SOL_TCP, SEQ) & 0xffffffff)
    server.close()
    return numbers
def again(numbers):
    one = made()
    one.setsockopt(socket.SOL_TCP, REPAIR, 1)
    one.bind(own)
    for queue, number in zip((1, 2), numbers):
        one.setsockopt(socket.SOL_TCP, QUEUE, queue)
        one.setsockopt(socket.SOL_TCP, SEQ, struct.pack('I', number))
    one.connect(peer)
    one.setsockopt(socket.SOL_TCP, OPTIONS, struct.pack('IIIIII', 2, 1460, 8, 0, 3, 7 + (7 << 16)))
    one.setsockopt(socket.SOL_TCP, REPAIR, 0)
    return one
def heard():
    try:
        return repr(client.recv(100))
    except TimeoutError:
        return 'nothing'
    except ConnectionResetError:
        return 'reset'
for line in sys.stdin:
    word = line.strip()
    if word == 'vanish':
        numbers = vanish()
    elif word == 'send':
        client.sendall(b'request')
    elif word == 'again':
        server = again(numbers)
    elif word == 'take':
        server.settimeout(20)
        print(server.recv(100), flush=True)
        continue
    elif word == 'hear long':
        client.settimeout(20)
    print(heard() if word.startswith('hear') else word, flush=True)
`;

test('what is left unanswered', { skip: isInside || needsRoot.skip }, () => {
  const env = { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: undefined };
  const script = 'ip link set lo up && exec "$0" --test "$1"';
  const args = ['--net', 'sh', '-c', script, process.execPath, import.meta.filename];
  const { status, stdout, stderr } = spawnSync('unshare', args, { env, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

class Ends {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(address: string) {
    const child = spawn('python3', ['-I', '-S', '-c', ENDS, address], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    this.#child = child;
  }

  async line(): Promise<string> {
    return String((await this.#lines.next()).value);
  }

  async say(word: string): Promise<string> {
    this.#child.stdin?.write(`${word}\n`);
    return await this.line();
  }

  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}

suite('segments of a connection that is not there', { skip: !isInside }, () => {
  const addresses = { '127.0.0.1': [127, 0, 0, 1], '::1': [...new Uint8Array(15), 1] };
  for (const [address, bytes] of Object.entries(addresses)) {
    const begin = async (): Promise<{ ends: Ends; tuple: TcpEnds }> => {
      const ends = new Ends(address);
      const [own = 0, peer = 0] = (await ends.line()).split(' ').map(Number);
      const end = (port: number) => ({ address: Uint8Array.from(bytes), port });
      return { ends, tuple: { own: end(own), peer: end(peer) } };
    };

    test(`are answered with a reset, as ever (${address})`, async () => {
      const { ends } = await begin();
      try {
        await ends.say('vanish');
        await ends.say('send');
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`are not answered, and reach it when it is there again (${address})`, async () => {
      const { ends, tuple } = await begin();
      const other = { ...tuple, peer: { ...tuple.peer, port: tuple.peer.port ^ 1 } };
      const kept = leaveUnanswered([other, tuple]);
      try {
        await ends.say('vanish');
        await ends.say('send');
        assert.equal(await ends.say('hear'), 'nothing');
        await ends.say('again');
        assert.equal(await ends.say('take'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    test(`are answered when nobody has the descriptors any more (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      await ends.say('vanish');
      await ends.say('send');
      assert.equal(await ends.say('hear'), 'nothing');
      for (const fd of kept) closeSync(fd);
      try {
        assert.equal(await ends.say('hear long'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`of another connection are answered (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([{ ...tuple, own: { ...tuple.own, port: tuple.own.port ^ 1 } }]);
      try {
        await ends.say('vanish');
        await ends.say('send');
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    const reverse = ({ own, peer }: TcpEnds): TcpEnds => ({ own: peer, peer: own });

    test(`has an idle end reset that is asked when the other one has gone (${address})`, async () => {
      const { ends, tuple } = await begin();
      try {
        assert.deepEqual([new TcpEndsNow().has(tuple), new TcpEndsNow().has(reverse(tuple))], [true, true]);
        await ends.say('vanish');
        assert.deepEqual([new TcpEndsNow().has(tuple), new TcpEndsNow().has(reverse(tuple))], [false, true]);
        assert.equal(await ends.say('hear'), 'nothing');
        assert.deepEqual(await resetHalfOpen([reverse(tuple)]), []);
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`has one reset at once that has sent in vain (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      await ends.say('vanish');
      await ends.say('send');
      // Each time that nothing comes it waits twice as long until it sends again.
      for (let i = 0; i < 4; i++) assert.equal(await ends.say('hear'), 'nothing');
      for (const fd of kept) closeSync(fd);
      try {
        assert.deepEqual(await resetHalfOpen([reverse(tuple)]), []);
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`does nothing to ends that are asked, and are both there (${address})`, async () => {
      const { ends, tuple } = await begin();
      try {
        for (const one of [tuple, reverse(tuple), tuple]) askEnd(one);
        assert.equal(await ends.say('hear'), 'nothing');
        await ends.say('send');
        assert.equal(await ends.say('take'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
        assert.deepEqual([new TcpEndsNow().has(tuple), new TcpEndsNow().has(reverse(tuple))], [true, true]);
      } finally {
        await ends.end();
      }
    });

    test(`does not tell an end that is asked while it is left unanswered (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      try {
        await ends.say('vanish');
        askEnd(reverse(tuple));
        assert.equal(await ends.say('hear'), 'nothing');
        await ends.say('send');
        await ends.say('again');
        assert.equal(await ends.say('take'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });
  }
});
