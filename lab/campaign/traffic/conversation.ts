import { Wire } from './wire.ts';

/** What one connection does, whatever the protocol, and the record of it. */
export interface Conversation {
  /** `redis incr`. */
  readonly name: string;
  readonly wire: Wire;
  /** Requests that were sent. */
  readonly asked: number;
  /** Requests that were answered. */
  readonly answered: number;
  /** What was wrong with what came: lost, repeated, reordered, other bytes. */
  readonly faults: readonly string[];
  /** Another value whenever the conversation went on, in each of its directions. */
  readonly progress: readonly number[];
  /** As many steps of `progress` are a while. */
  readonly while: number;
  /** Whether all has come that is to come, after `finish`. */
  readonly isDone: boolean;
  /** Sends what is due; called every few milliseconds. */
  ask(): void;
  /** Asks for nothing more. */
  finish(): void;
}

/** A conversation in which requests are numbered, and each is answered: the record that all such keep. */
export abstract class Numbered implements Conversation {
  readonly name: string;
  abstract readonly while: number;
  protected connected: Wire | undefined;
  protected sent = 0;
  protected come = 0;
  protected readonly wrong: string[] = [];
  protected isFinishing = false;

  protected constructor(name: string) {
    this.name = name;
  }

  get wire(): Wire {
    if (this.connected === undefined) throw new Error(`${this.name} is not connected`);
    return this.connected;
  }

  get asked(): number {
    return this.sent;
  }

  get answered(): number {
    return this.come;
  }

  get faults(): readonly string[] {
    return this.wrong;
  }

  abstract get progress(): readonly number[];

  get isDone(): boolean {
    return this.come >= this.sent;
  }

  abstract ask(): void;

  finish(): void {
    this.isFinishing = true;
  }
}

/** How numbered requests are asked and answered. */
export interface Protocol {
  readonly name: string;
  /** Sent first. Its answer has `greetingLines` lines, and is not looked at. */
  readonly greeting?: string;
  readonly greetingLines?: number;
  /** Bytes of request `n`, which is 1 or more, with their end of line. */
  request(n: number): string;
  /** Lines of an answer. */
  readonly lines: number;
  /** @returns what is wrong with the answer to request `n` */
  judge(n: number, lines: readonly string[]): string | undefined;
  /** Requests without an answer at a time; 0 of one that only listens. */
  readonly window: number;
  /** Milliseconds between two requests at least; without it, an answer is followed by a request at once. */
  readonly pace?: number;
  /** Answers that are to come, where that is not one to each request. */
  due?(): number;
}

/** Numbered requests, several of them under way, and answers in lines. */
export class Requests extends Numbered {
  override readonly while = 20;
  readonly #protocol: Protocol;
  #text = '';
  #lines: string[] = [];
  #greetingLines: number;
  #nextAsk = 0;

  private constructor(protocol: Protocol) {
    super(protocol.name);
    this.#protocol = protocol;
    this.#greetingLines = protocol.greetingLines ?? 0;
  }

  static async to(port: number, protocol: Protocol): Promise<Requests> {
    const made = new Requests(protocol);
    made.connected = await Wire.to(port, (data) => made.#take(data));
    if (protocol.greeting !== undefined) made.connected.write(protocol.greeting);
    return made;
  }

  override get progress(): readonly number[] {
    return [this.come];
  }

  override get isDone(): boolean {
    return this.come >= (this.#protocol.due?.() ?? this.sent);
  }

  override ask(): void {
    const { window, pace = 0 } = this.#protocol;
    if (this.isFinishing || this.wire.ended !== undefined) return;
    if (this.#greetingLines > 0 || performance.now() < this.#nextAsk) return;
    let text = '';
    while (this.sent - this.come < window) {
      text += this.#protocol.request(++this.sent);
      if (pace > 0) break;
    }
    if (text === '') return;
    this.#nextAsk = performance.now() + pace;
    this.wire.write(text);
  }

  #take(data: Buffer): void {
    const lines = (this.#text + data.toString('latin1')).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) this.#takeLine(line.replace(/\r$/, ''));
    if (this.#protocol.pace === undefined) this.ask();
  }

  #takeLine(line: string): void {
    if (this.#greetingLines > 0) {
      this.#greetingLines--;
      return;
    }
    this.#lines.push(line);
    if (this.#lines.length < this.#protocol.lines) return;
    const n = ++this.come;
    const isAsked = n <= (this.#protocol.due?.() ?? this.sent);
    const fault = isAsked ? this.#protocol.judge(n, this.#lines) : `'${line}', which nobody had asked for`;
    this.#lines = [];
    // What comes after the first is shifted, and would only repeat it.
    if (fault !== undefined && this.wrong.length === 0) this.wrong.push(`answer ${this.come}: ${fault}`);
  }
}
