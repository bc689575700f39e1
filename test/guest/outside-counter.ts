import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** What a client of a guest asks again and again, and what the answer is then. */
export interface Counting {
  /** Said first, and `begun` is its answer; empty if there is none. */
  readonly begin: string;
  readonly begun: string;
  /** Request `number`, which is 1 or more, with its end of line. */
  request(number: number): string;
  /** Its answer, without the end of line. */
  answer(number: number): string;
}

/** Of `serve` of programs/connections.py, which answers with how many requests there were. */
export const counted = (name: string): Counting => ({
  begin: `${name} count 0 0\n`,
  begun: '',
  request: (number) => `request${number}\n`,
  answer: (number) => `request${number} ${number}`,
});

/** All sums have as many digits. */
const FIRST = 1000;

/** Of memcached: each request counts up, and is answered with the sum. */
export const memcached: Counting = {
  begin: `set outside 0 0 4\r\n${FIRST}\r\n`,
  begun: 'STORED\r\n',
  request: () => 'incr outside 1\r\n',
  answer: (number) => String(FIRST + number),
};

/** A client of a guest, outside of it: no request of it is lost or repeated, or it says which. */
export class OutsideCounter {
  readonly #socket: Socket;
  readonly #counting: Counting;
  #asked = 0;
  #answered = 0;
  #wrong: string | undefined;
  #text = '';

  private constructor(socket: Socket, counting: Counting) {
    this.#socket = socket;
    this.#counting = counting;
    socket.on('data', (data) => this.#take(String(data)));
    socket.on('error', (error) => {
      this.#wrong ??= error.message;
    });
    socket.on('end', () => {
      this.#wrong ??= 'it is at its end';
    });
  }

  /** Connects to a port of this host. */
  static async to(port: number, counting: Counting): Promise<OutsideCounter> {
    const socket = connect({ port, host: '127.0.0.1' });
    await once(socket, 'connect');
    socket.write(counting.begin);
    if (counting.begun !== '') {
      const [answer] = await once(socket, 'data');
      if (String(answer) !== counting.begun) throw new Error(`instead of ${counting.begun}: ${answer}`);
    }
    return new OutsideCounter(socket, counting);
  }

  /** Sends so many requests, whether or not the ones before are answered. */
  ask(count: number): void {
    for (let i = 0; i < count; i++) this.#socket.write(this.#counting.request(++this.#asked));
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
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines.map((line) => line.replace(/\r$/, ''))) {
      const number = ++this.#answered;
      if (line !== this.#counting.answer(number)) this.#wrong ??= `answer ${number} is '${line}'`;
    }
  }
}
