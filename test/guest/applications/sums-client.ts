import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const SIZE = 256;
const PACE_MILLISECONDS = 500;

/**
 * A client of one of the servers in examples/runtimes, outside of the guest. It knows what each answer has to
 * be, as it does the same sums itself.
 */
export class SumsClient {
  readonly #socket: Socket;
  readonly #table = new Array<number>(SIZE).fill(0);
  readonly #timer: NodeJS.Timeout;
  #asked = 0;
  #answered = 0;
  #ticks = 0;
  #firstTick: number | undefined;
  #wrong: string | undefined;
  #text = '';
  #longestSilence = 0;
  #heard = performance.now();

  constructor(port: number) {
    this.#socket = connect({ port, host: '127.0.0.1' });
    this.#socket.on('data', (data) => this.#take(String(data)));
    this.#socket.on('error', (error) => this.#fail(error.message));
    this.#socket.on('close', () => this.#fail('the connection is closed'));
    this.#timer = setInterval(() => this.#ask(), PACE_MILLISECONDS);
  }

  /** What was wrong with a line, or with the connection. */
  get wrong(): string | undefined {
    return this.#wrong;
  }

  /** So far, for people. */
  get summary(): string {
    const silence = (this.#longestSilence / 1000).toFixed(1);
    return `${this.#answered} of ${this.#asked} answered, ${this.#ticks} ticks, silent for ${silence} s`;
  }

  /**
   * Waits until the server has answered so many more requests, and has ticked since.
   * @returns what is wrong, if something is
   */
  async hears(more: number, seconds: number): Promise<string | undefined> {
    const [answered, ticks] = [this.#answered + more, this.#ticks + 2];
    const end = performance.now() + seconds * 1000;
    while (this.#wrong === undefined && (this.#answered < answered || this.#ticks < ticks)) {
      if (performance.now() > end) return `nothing more within ${seconds} s: ${this.summary}`;
      await sleep(100);
    }
    return this.#wrong;
  }

  /** Asks no more, and waits until all that was asked is answered. @returns what is wrong, if something is */
  async ends(seconds: number): Promise<string | undefined> {
    clearInterval(this.#timer);
    return this.#answered < this.#asked ? this.hears(this.#asked - this.#answered, seconds) : this.#wrong;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#socket.removeAllListeners('close');
    this.#socket.destroy();
  }

  #ask(): void {
    if (this.#wrong === undefined) this.#socket.write(`add ${++this.#asked}\n`);
  }

  #fail(what: string): void {
    this.#wrong ??= `${what} (${this.summary})`;
  }

  #sum(): number {
    return this.#table.reduce((total, value, i) => (total + value * (i + 1)) % 1_000_003, 0);
  }

  #take(text: string): void {
    const now = performance.now();
    this.#longestSilence = Math.max(this.#longestSilence, now - this.#heard);
    this.#heard = now;
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) this.#takeLine(line);
  }

  #takeLine(line: string): void {
    const isTick = line.startsWith('tick ');
    if (isTick) this.#ticks += 1;
    else this.#add(++this.#answered);
    this.#firstTick ??= isTick ? Number(line.split(' ')[1]) : undefined;
    const expected = isTick
      ? `tick ${(this.#firstTick ?? 0) + this.#ticks - 1} ${this.#sum()} 500`
      : `sum ${this.#answered} ${this.#answered} ${this.#sum()}`;
    if (line !== expected) this.#fail(`'${line}', and not '${expected}'`);
  }

  #add(number: number): void {
    this.#table[number % SIZE] = (this.#table[number % SIZE] ?? 0) + number;
  }
}
