// Two ends of a TCP connection over the loopback of which one can vanish, in a network of their own.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TcpEnds } from '../../src/system/unanswered.ts';

const INSIDE = 'OTHERWORLD_TEST_NETWORK';
export const isInside = process.env[INSIDE] !== undefined;

/** Runs a test file once more, in a network namespace that has a loopback alone. */
export function runInside(file: string): void {
  const env = { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: undefined };
  const script = 'ip link set lo up && exec "$0" --test "$1"';
  const args = ['--net', 'sh', '-c', script, process.execPath, file];
  const { status, stdout, stderr } = spawnSync('unshare', args, { env, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
}

/**
 * Two ends of a connection, of which one vanishes as with its kernel (TCP_REPAIR: without a word), and is
 * made again with its numbers. What the other one sends meanwhile has no socket.
 */
const ENDS = `
import socket, struct, sys
REPAIR, QUEUE, SEQ, OPTIONS, TIMESTAMP = 19, 20, 21, 22, 24
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
    numbers, stamp = [], server.getsockopt(socket.SOL_TCP, TIMESTAMP)
    for queue in (1, 2):
        server.setsockopt(socket.SOL_TCP, QUEUE, queue)
        numbers.append(server.getsockopt(socket.SOL_TCP, SEQ) & 0xffffffff)
    server.close()
    return numbers, stamp
def again(numbers, stamp):
    one = made()
    one.setsockopt(socket.SOL_TCP, REPAIR, 1)
    one.bind(own)
    for queue, number in zip((1, 2), numbers):
        one.setsockopt(socket.SOL_TCP, QUEUE, queue)
        one.setsockopt(socket.SOL_TCP, SEQ, struct.pack('I', number))
    one.connect(peer)
    one.setsockopt(socket.SOL_TCP, OPTIONS, struct.pack('IIIIII', 2, 1460, 8, 0, 3, 7 + (7 << 16)))
    # Without it the other end may take what comes for old (PAWS).
    one.setsockopt(socket.SOL_TCP, TIMESTAMP, stamp)
    one.setsockopt(socket.SOL_TCP, REPAIR, 0)
    return one
def heard(client):
    try:
        return repr(client.recv(100))
    except TimeoutError:
        return 'nothing'
    except ConnectionResetError:
        return 'reset'
for line in sys.stdin:
    word = line.strip()
    if word == 'vanish':
        numbers, stamp = vanish()
    elif word == 'send':
        client.sendall(b'request')
    elif word == 'again':
        server = again(numbers, stamp)
    elif word == 'number':
        print(numbers[0], flush=True)
        continue
    elif word == 'reply':
        server.settimeout(0.5)
        print(heard(server), flush=True)
        continue
    elif word == 'take':
        server.settimeout(20)
        print(server.recv(100), flush=True)
        continue
    elif word == 'hear long':
        client.settimeout(20)
    print(heard(client) if word.startswith('hear') else word, flush=True)
`;

export class Ends {
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

/** The ends of the one that can vanish. */
export async function beginEnds(address: '127.0.0.1' | '::1'): Promise<{ ends: Ends; tuple: TcpEnds }> {
  const ends = new Ends(address);
  const [own = 0, peer = 0] = (await ends.line()).split(' ').map(Number);
  const bytes = address === '::1' ? [...new Uint8Array(15), 1] : [127, 0, 0, 1];
  const end = (port: number) => ({ address: Uint8Array.from(bytes), port });
  return { ends, tuple: { own: end(own), peer: end(peer) } };
}

export function reverse({ own, peer }: TcpEnds): TcpEnds {
  return { own: peer, peer: own };
}
