import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Agent, get, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import type { TestGuest } from '../harness.ts';

const FOLDER = join(import.meta.dirname, '../../../examples/php');
const PACE_MILLISECONDS = 500;
/** Of the file that is downloaded, and how many of them the client takes in a second until it is to hurry. */
const LARGE_BYTES = 200_000_000;
const BYTES_PER_SECOND = 1_000_000;
/** What the sockets on the way, and QEMU between them, hold at most. */
const ON_THE_WAY = 32_000_000;
/** Sessions besides that of the client that visits all the time. */
const VISITORS = 20;

/** What examples/php/visit.php answers. */
const visitSchema = z.strictObject({
  visits: z.int(),
  word: z.string().regex(/^[0-9a-f]{32}$/),
  apcu: z.int(),
  shared: z.int(),
  pid: z.int(),
});
type Visit = z.infer<typeof visitSchema>;

interface Request {
  readonly path: string;
  readonly agent: Agent | false;
  readonly cookie?: string | undefined;
}

/** Clients of PHP in Apache, outside of the guest. */
export class PhpClients {
  readonly #guest: TestGuest;
  readonly #port: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  /** Ports of this host that requests of the one connection came from. */
  readonly #ports = new Set<number | undefined>();
  /** Of sessions that were visited once: their cookie and their word. */
  readonly #visitors: { cookie: string; word: string }[] = [];
  #cookie: string | undefined;
  #first: Visit | undefined;
  #right = 0;
  /** Visits of all, each of which the memory of Apache has counted. */
  #visits = 0;
  #wrong: string | undefined;
  #visiting: Promise<void> | undefined;
  #isOver = false;
  #download: Promise<string> | undefined;
  #loaded = 0;
  #isInHurry = false;

  private constructor(guest: TestGuest, port: number) {
    this.#guest = guest;
    this.#port = port;
  }

  /** @param port of this host, which leads to Apache's */
  static async start(guest: TestGuest, port: number): Promise<PhpClients> {
    await guest.copyIn(FOLDER, '/srv/php');
    await guest.sh(`sh /srv/php/configure.sh ${LARGE_BYTES}`, 300);
    const clients = new PhpClients(guest, port);
    for (let i = 0; i < VISITORS; i++) {
      const { visit, cookie } = await clients.#visit({ agent: false });
      assert.equal(visit.visits, 1);
      clients.#visitors.push({ cookie: cookie ?? assert.fail('no cookie'), word: visit.word });
    }
    clients.#visiting = clients.#visitOn();
    return clients;
  }

  get summary(): string {
    return `${this.#right} visits by ${this.#ports.size} connection(s), ${this.#loaded} bytes of the download`;
  }

  #answer({ path, agent, cookie }: Request): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const headers = cookie === undefined ? {} : { cookie };
      const request = get({ host: '127.0.0.1', port: this.#port, path, agent, headers }, (response) => {
        if (agent === this.#agent) this.#ports.add(request.socket?.localPort);
        resolve(response);
      });
      request.on('error', reject);
    });
  }

  /** Every process of Apache has to have counted it, after all visits before it. */
  async #visit(request: Omit<Request, 'path'>): Promise<{ visit: Visit; cookie: string | undefined }> {
    const response = await this.#answer({ ...request, path: '/visit.php' });
    let text = '';
    for await (const part of response) text += String(part);
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}: ${text}`);
    const visit = visitSchema.parse(JSON.parse(text));
    this.#visits += 1;
    const { apcu, shared } = visit;
    assert.deepEqual({ apcu, shared }, { apcu: this.#visits, shared: this.#visits });
    return { visit, cookie: cookieOf(response.headers) };
  }

  async #visitOn(): Promise<void> {
    try {
      while (!this.#isOver) {
        const { visit, cookie } = await this.#visit({ agent: this.#agent, cookie: this.#cookie });
        this.#cookie ??= cookie;
        this.#first ??= visit;
        this.#right += 1;
        const { word, pid } = this.#first;
        const { visits } = visit;
        assert.deepEqual({ visits, word: visit.word, pid: visit.pid }, { visits: this.#right, word, pid });
        await sleep(PACE_MILLISECONDS);
      }
    } catch (error) {
      this.#wrong ??= `${error} (${this.summary})`;
    }
  }

  /** Begins a download that takes longer than what is left of the dying kernel. */
  async download(): Promise<void> {
    const response = await this.#answer({ path: '/large', agent: false });
    assert.equal(response.headers['content-length'], String(LARGE_BYTES));
    this.#download = this.#take(response).catch((error) => String(error));
    const end = performance.now() + 60_000;
    while (this.#loaded === 0 && performance.now() < end) await sleep(100);
  }

  async #take(response: IncomingMessage): Promise<string> {
    const hash = createHash('sha256');
    const began = performance.now();
    for await (const part of response) {
      hash.update(part);
      this.#loaded += part.length;
      const due = (this.#loaded / BYTES_PER_SECOND) * 1000;
      while (!this.#isInHurry && performance.now() - began < due) await sleep(50);
    }
    return hash.digest('hex');
  }

  /** The download is under way: a part of it is here, and another one can be nowhere but in the guest. */
  isLoading(): void {
    assert.ok(this.#loaded > 0 && this.#loaded < LARGE_BYTES - ON_THE_WAY, this.summary);
  }

  /** Visits of the one session go on by the one connection and the same process; each is counted once. */
  async goesOn(): Promise<void> {
    const [right, end] = [this.#right + 10, performance.now() + 240_000];
    while (this.#wrong === undefined && this.#right < right && performance.now() < end) await sleep(100);
    assert.equal(this.#wrong, undefined);
    assert.ok(this.#right >= right, this.summary);
    assert.equal(this.#ports.size, 1);
  }

  /** The download that was under way has every byte. */
  async downloads(): Promise<void> {
    this.#isInHurry = true;
    const expected = await this.#guest.sh("sha256sum /var/www/html/large | cut -d' ' -f1", 300);
    assert.equal(await this.#download, expected, this.summary);
    assert.equal(this.#loaded, LARGE_BYTES);
  }

  /** Everybody who had a session has it, by whatever process of Apache. */
  async hasItsSessions(): Promise<void> {
    this.#isOver = true;
    await this.#visiting;
    assert.equal(this.#wrong, undefined);
    assert.equal(this.#visitors.length, VISITORS);
    for (const { cookie, word } of this.#visitors) {
      const { visit } = await this.#visit({ agent: false, cookie });
      assert.deepEqual([visit.visits, visit.word], [2, word]);
    }
  }

  /** What has it all in memory alone has none of it when it is started afresh, but for System V and tmpfs. */
  async startsAfresh(): Promise<void> {
    await this.#guest.sh('systemctl restart apache2', 120);
    const [{ cookie, word } = assert.fail()] = this.#visitors;
    const response = await this.#answer({ path: '/visit.php', agent: false, cookie });
    let text = '';
    for await (const part of response) text += String(part);
    const { apcu, shared, visits, word: its } = visitSchema.parse(JSON.parse(text));
    assert.deepEqual([apcu, shared, visits, its], [1, this.#visits + 1, 3, word]);
  }

  close(): void {
    this.#isOver = true;
    this.#isInHurry = true;
    this.#agent.destroy();
  }
}

/** What a client sends with its next request, if the answer gave it a session. */
function cookieOf(headers: IncomingHttpHeaders): string | undefined {
  return headers['set-cookie']?.[0]?.split(';')[0];
}
