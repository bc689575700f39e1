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
export class Requests implements Conversation {
  readonly name: string;
  readonly while = 20;
  readonly #protocol: Protocol;
  #wire: Wire | undefined;
  #asked = 0;
  #answered = 0;
  readonly #faults: string[] = [];
  #text = '';
  #lines: string[] = [];
  #greetingLines: number;
  #isFinishing = false;
  #nextAsk = 0;

  private constructor(protocol: Protocol) {
    this.name = protocol.name;
    this.#protocol = protocol;
    this.#greetingLines = protocol.greetingLines ?? 0;
  }

  static async to(port: number, protocol: Protocol): Promise<Requests> {
    const made = new Requests(protocol);
    made.#wire = await Wire.to(port, (data) => made.#take(data));
    if (protocol.greeting !== undefined) made.#wire.write(protocol.greeting);
    return made;
  }

  get wire(): Wire {
    if (this.#wire === undefined) throw new Error(`${this.name} is not connected`);
    return this.#wire;
  }

  get asked(): number {
    return this.#asked;
  }

  get answered(): number {
    return this.#answered;
  }

  get faults(): readonly string[] {
    return this.#faults;
  }

  get progress(): readonly number[] {
    return [this.#answered];
  }

  get isDone(): boolean {
    return this.#answered >= (this.#protocol.due?.() ?? this.#asked);
  }

  ask(): void {
    const { window, pace = 0 } = this.#protocol;
    if (this.#isFinishing || this.wire.ended !== undefined) return;
    if (this.#greetingLines > 0 || performance.now() < this.#nextAsk) return;
    let text = '';
    while (this.#asked - this.#answered < window) {
      text += this.#protocol.request(++this.#asked);
      if (pace > 0) break;
    }
    if (text === '') return;
    this.#nextAsk = performance.now() + pace;
    this.wire.write(text);
  }

  finish(): void {
    this.#isFinishing = true;
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
    const n = ++this.#answered;
    const isAsked = n <= (this.#protocol.due?.() ?? this.#asked);
    const fault = isAsked ? this.#protocol.judge(n, this.#lines) : `'${line}', which nobody had asked for`;
    this.#lines = [];
    // What comes after the first is shifted, and would only repeat it.
    if (fault !== undefined && this.#faults.length === 0)
      this.#faults.push(`answer ${this.#answered}: ${fault}`);
  }
}
