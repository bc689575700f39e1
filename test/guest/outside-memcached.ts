import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const FIRST = 1000;

/** A client of a guest's memcached, outside of it: each request counts up, and is answered with the sum. */
export class OutsideMemcached {
  readonly #socket: Socket;
  #answered = 0;
  #wrong: string | undefined;
  #text = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (data) => this.#take(String(data)));
    socket.on('error', (error) => {
      this.#wrong ??= error.message;
    });
    socket.on('end', () => {
      this.#wrong ??= 'it is at its end';
    });
  }

  /** Connects to a port of this host, and makes what is counted: all sums have as many digits. */
  static async to(port: number): Promise<OutsideMemcached> {
    const socket = connect({ port, host: '127.0.0.1' });
    await once(socket, 'connect');
    socket.write(`set outside 0 0 4\r\n${FIRST}\r\n`);
    const [answer] = await once(socket, 'data');
    if (String(answer) !== 'STORED\r\n') throw new Error(`memcached says ${answer}`);
    return new OutsideMemcached(socket);
  }

  /** Sends so many requests, whether or not the ones before are answered. */
  ask(count: number): void {
    for (let i = 0; i < count; i++) this.#socket.write('incr outside 1\r\n');
  }

  get answered(): number {
    return this.#answered;
  }

  /** What was wrong with an answer, or with the connection. */
  get wrong(): string | undefined {
    return this.#wrong;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\r\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) {
      const number = ++this.#answered;
      if (line !== String(FIRST + number)) this.#wrong ??= `answer ${number} is '${line}'`;
    }
  }
}
