import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const CHUNK = 16384;
const PACE_MILLISECONDS = 40;

/** The bytes of a stream from one place on, as `stream` of programs/connections.py makes them. */
function streamAt(seed: number, at: number, length: number): Buffer {
  const first = Math.floor(at / 4);
  const words = Uint32Array.from({ length: Math.ceil((at + length) / 4) - first }, (_, i) =>
    Number((BigInt(first + i) * 2_654_435_761n + BigInt(seed)) & 0xffff_ffffn),
  );
  return Buffer.from(words.buffer).subarray(at - first * 4, at - first * 4 + length);
}

/**
 * One end of a connection to a guest, outside of it, of which it knows nothing: it keeps a record of every
 * byte.
 */
export class OutsidePeer {
  readonly #socket: Socket;
  readonly #expected: number;
  #received = 0;
  readonly #end = Promise.withResolvers<string>();

  /** @param expected seed of the stream that is to come */
  constructor(socket: Socket, expected: number) {
    this.#socket = socket;
    this.#expected = expected;
    socket.on('data', (data) => this.#take(Buffer.from(data)));
    socket.on('end', () => this.#end.resolve(`right ${this.#received}`));
    socket.on('error', (error) => this.#end.resolve(error.message));
  }

  /** Connects to a port of this host, and says what is wanted. */
  static async to(
    port: number,
    name: string,
    kind: string,
    seed: number,
    bytes: number,
  ): Promise<OutsidePeer> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    await new Promise<void>((resolve) => socket.once('connect', resolve));
    const peer = new OutsidePeer(socket, seed + 1);
    socket.write(`${name} ${kind} ${seed} ${bytes}\n`);
    return peer;
  }

  /** Bytes that have come, all of them right. */
  get received(): number {
    return this.#received;
  }

  /** What came of it: `right`, and how many bytes came until the other end had ended its side. */
  get outcome(): Promise<string> {
    return this.#end.promise;
  }

  /** Does not read, or reads on: what comes waits where it is. */
  pause(isPaused: boolean): void {
    if (isPaused) this.#socket.pause();
    else this.#socket.resume();
  }

  /** Sends a stream, and ends this side. */
  async send(seed: number, bytes: number, pace: number = PACE_MILLISECONDS): Promise<void> {
    for (let at = 0; at < bytes; at += CHUNK) {
      const isRoom = this.#socket.write(streamAt(seed, at, Math.min(CHUNK, bytes - at)));
      if (!isRoom) await new Promise<void>((resolve) => this.#socket.once('drain', resolve));
      if (pace > 0) await sleep(pace);
    }
    this.#socket.end();
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(data: Buffer): void {
    const isRight = data.equals(streamAt(this.#expected, this.#received, data.length));
    if (!isRight) {
      this.#end.resolve(`wrong bytes between ${this.#received} and ${this.#received + data.length}`);
      this.#socket.destroy();
    }
    this.#received += data.length;
  }
}

const DEAF = `
import socket, sys, threading
server = socket.create_server(('127.0.0.1', 0), backlog=0)
first = [socket.socket() for _ in range(3)]
for one in first:
    one.setblocking(False)
    one.connect_ex(server.getsockname())
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
def answer(connection):
    line = connection.makefile('r').readline()
    connection.sendall(('hello ' + line).encode())
while True:
    connection, _ = server.accept()
    threading.Thread(target=answer, args=(connection,), daemon=True).start()
`;

/** A port of this host that answers nobody who connects, until it is told to. */
export class DeafListener {
  readonly port: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(): Promise<DeafListener> {
    const child = spawn('python3', ['-c', DEAF], { stdio: ['pipe', 'pipe', 'inherit'] });
    const [line] = await once(child.stdout, 'data');
    return new DeafListener(child, Number(line));
  }

  /** Accepts from now on, and says hello to who has said a line. */
  listen(): void {
    this.#child.stdin?.write('go\n');
  }

  close(): void {
    this.#child.kill();
  }
}

/** What came of a connection that was begun while nobody was there. */
export interface Knock {
  /** Seconds from its beginning to its end, or to the first answer. */
  readonly seconds: number;
  readonly outcome: 'answered' | 'closed';
}

/** Connects to a port of a guest, through the host's QEMU, and asks one thing. */
export async function knock(port: number, name: string): Promise<Knock> {
  const began = performance.now();
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write(`${name} count 0 0\nrequest1\n`);
  const outcome = await new Promise<Knock['outcome']>((resolve) => {
    socket.once('data', (data) => resolve(String(data) === 'request1 1\n' ? 'answered' : 'closed'));
    socket.once('error', () => resolve('closed'));
    socket.once('close', () => resolve('closed'));
  });
  socket.destroy();
  return { seconds: (performance.now() - began) / 1000, outcome };
}

/** Accepts one connection on a free port of this host. */
export async function listenOutside(): Promise<{
  readonly port: number;
  readonly server: Server;
  accept(): Promise<Socket>;
}> {
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => accepted.resolve(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return { port, server, accept: () => accepted.promise };
}
