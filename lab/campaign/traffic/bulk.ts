import { createHash, type Hash } from 'node:crypto';
import { type Conversation, Numbered } from './conversation.ts';
import { BLOCK, firstDifference, Stream } from './stream.ts';
import { Wire } from './wire.ts';

/** Bytes that wait to be sent at most. */
const MOST_WAITING = 4 * BLOCK;
/** Milliseconds between two blocks that are sent. */
const PACE = 50;

/** What the server of a stream says when both sides have ended, in bytes and SHA-256. */
export interface StreamDigest {
  readonly got: number;
  readonly gotSha256: string;
  readonly sent: number;
  readonly sentSha256: string;
}

/** Much data both ways at once, through `stream` of servers.py. */
export class BulkStream implements Conversation {
  readonly name: string;
  readonly while = 20 * BLOCK;
  readonly #up: Stream;
  readonly #down: Stream;
  readonly #sentHash: Hash = createHash('sha256');
  readonly #gotHash: Hash = createHash('sha256');
  readonly #faults: string[] = [];
  #wire: Wire | undefined;
  #written = 0;
  #isFinishing = false;
  #nextAsk = 0;

  private constructor(name: string, seed: number) {
    this.name = `stream ${name}`;
    this.#up = new Stream(seed);
    this.#down = new Stream(seed + 1);
  }

  static async to(port: number, name: string, seed: number): Promise<BulkStream> {
    const made = new BulkStream(name, seed);
    made.#wire = await Wire.to(port, (data) => made.#take(data));
    made.#wire.write(`stream ${name} ${seed}\n`);
    return made;
  }

  get wire(): Wire {
    if (this.#wire === undefined) throw new Error(`${this.name} is not connected`);
    return this.#wire;
  }

  /** Blocks. */
  get asked(): number {
    return this.#written / BLOCK;
  }

  /** Blocks that have come. */
  get answered(): number {
    return Math.floor(this.wire.got / BLOCK);
  }

  get faults(): readonly string[] {
    return this.#faults;
  }

  get progress(): readonly number[] {
    return [this.wire.got, this.wire.sent];
  }

  get isDone(): boolean {
    return this.wire.ended === 'end';
  }

  ask(): void {
    const { socket, ended } = this.wire;
    const now = performance.now();
    if (this.#isFinishing || ended !== undefined || now < this.#nextAsk) return;
    if (socket.writableLength >= MOST_WAITING) return;
    const data = this.#up.slice(this.#written, BLOCK);
    this.#sentHash.update(data);
    this.#written += BLOCK;
    this.#nextAsk = now + PACE;
    this.wire.write(data);
  }

  /** Ends this side; the server ends its own then. */
  finish(): void {
    if (this.#isFinishing) return;
    this.#isFinishing = true;
    this.wire.socket.end();
  }

  /** What is wrong with what the server has counted, when both sides have ended. */
  compare({ got, gotSha256, sent, sentSha256 }: StreamDigest): string[] {
    const own = [this.#written, this.#sentHash.copy().digest('hex')] as const;
    const other = [this.wire.got, this.#gotHash.copy().digest('hex')] as const;
    const faults: string[] = [];
    if (got !== own[0] || gotSha256 !== own[1])
      faults.push(`the server got ${got} bytes (SHA-256 ${gotSha256}), ${own[0]} were sent (${own[1]})`);
    if (sent !== other[0] || sentSha256 !== other[1])
      faults.push(`the server sent ${sent} bytes (SHA-256 ${sentSha256}), ${other[0]} came (${other[1]})`);
    return faults;
  }

  #take(data: Buffer): void {
    this.#gotHash.update(data);
    const at = this.wire.got - data.length;
    const expected = this.#down.slice(at, data.length);
    if (this.#faults.length > 0 || data.equals(expected)) return;
    this.#faults.push(`other bytes than were sent from byte ${at + firstDifference(data, expected)} on`);
  }
}

/** The file that is downloaded is the beginning of this stream. */
export const FILE = { seed: 4, bytes: 16 * 2 ** 20, name: 'traffic.bin' } as const;
const RANGE = 2 ** 20;
/** Ranges that are asked for before the first has come. */
const WINDOW = 3;
/** So many bytes are read, then nothing for so many milliseconds: what comes meanwhile waits where it is. */
const READ_AT_ONCE = 4 * BLOCK;
const REST = 150;

/** Ranges of a file, one after the other through the same connection: each answer says which it is. */
export class Downloads extends Numbered {
  override readonly while = 5 * RANGE;
  readonly #file = new Stream(FILE.seed).slice(0, FILE.bytes);
  #head = '';
  /** What is still to come of a body; undefined within a head. */
  #body: { at: number; readonly end: number } | undefined;
  #sinceRest = 0;

  private constructor(name: string) {
    super(`nginx get ${name}`);
  }

  static async to(port: number, name: string): Promise<Downloads> {
    const made = new Downloads(name);
    made.connected = await Wire.to(port, (data) => made.#take(data));
    return made;
  }

  override get progress(): readonly number[] {
    return [this.wire.got];
  }

  override ask(): void {
    if (this.isFinishing || this.wire.ended !== undefined) return;
    while (this.sent - this.come < WINDOW) {
      const at = rangeOf(++this.sent);
      const range = `Range: bytes=${at}-${at + RANGE - 1}`;
      this.wire.write(`GET /${FILE.name} HTTP/1.1\r\nHost: guest\r\n${range}\r\n\r\n`);
    }
  }

  #take(data: Buffer): void {
    this.#rest(data.length);
    let left = data;
    while (left.length > 0 && this.wrong.length === 0)
      left = this.#body === undefined ? this.#takeHead(left) : this.#takeBody(left, this.#body);
  }

  #rest(bytes: number): void {
    this.#sinceRest += bytes;
    if (this.#sinceRest < READ_AT_ONCE) return;
    this.#sinceRest = 0;
    this.wire.socket.pause();
    setTimeout(() => this.wire.socket.resume(), REST);
  }

  /** @returns what is behind the end of the head */
  #takeHead(data: Buffer): Buffer {
    const before = this.#head.length;
    this.#head += data.toString('latin1');
    const end = this.#head.indexOf('\r\n\r\n');
    if (end === -1) return Buffer.alloc(0);
    const at = rangeOf(this.come + 1);
    const range = `content-range: bytes ${at}-${at + RANGE - 1}/${FILE.bytes}`;
    const head = this.#head.slice(0, end).toLowerCase().split('\r\n');
    if (!head[0]?.startsWith('http/1.1 206 ') || !head.includes(range))
      this.wrong.push(`answer ${this.come + 1}: '${head.join('|').slice(0, 200)}' instead of '${range}'`);
    this.#head = '';
    this.#body = { at, end: at + RANGE };
    return data.subarray(end + 4 - before);
  }

  #takeBody(data: Buffer, body: { at: number; readonly end: number }): Buffer {
    const piece = data.subarray(0, body.end - body.at);
    const expected = this.#file.subarray(body.at, body.at + piece.length);
    if (!piece.equals(expected)) {
      const at = body.at + firstDifference(piece, expected);
      this.wrong.push(`answer ${this.come + 1}: other bytes than the file has from byte ${at} on`);
    }
    body.at += piece.length;
    if (body.at === body.end) {
      this.#body = undefined;
      this.come++;
      this.ask();
    }
    return data.subarray(piece.length);
  }
}

/** Where range `n` begins: no two neighbours are alike. */
function rangeOf(n: number): number {
  return (n * 5 * BLOCK + n) % (FILE.bytes - RANGE);
}
