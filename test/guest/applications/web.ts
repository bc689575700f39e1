import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Agent, get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestGuest } from '../harness.ts';

const PACE_MILLISECONDS = 1000;
const PAGES = 50;
/** Of the file that is downloaded. */
const LARGE_BYTES = 3_000_000;
/** HAProxy binds its sockets under other names and renames them: files, owners, modes, and those names. */
const SOCKETS =
  'find /run -maxdepth 2 -path "*haproxy*.sock*" -printf "%p %u %g %m %y\\n" | sort; ss -xlnH | grep -o "/run/haproxy[^ ]*" | sort';
/** Asks the socket for the administrator. */
const ASK =
  'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/haproxy/admin.sock"); ' +
  's.sendall(b"show info\\n"); print(s.makefile().readline().strip())';

/** What a page of this number has in it: as examples/haproxy/configure.sh makes them. */
const page = (number: number): string => `page ${number} ${(number * 2_654_435_761) % 4_294_967_296}\n`;

const FOLDER = join(import.meta.dirname, '../../../examples/haproxy');

function answer(options: { port: number; path: string; agent: Agent | false }): Promise<{
  response: IncomingMessage;
  localPort: number | undefined;
}> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', ...options }, (response) =>
      resolve({ response, localPort: request.socket?.localPort }),
    );
    request.on('error', reject);
  });
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of response) text += String(part);
  return text;
}

/** Clients of HAProxy in front of nginx, outside of the guest. */
export class WebClients {
  readonly #guest: TestGuest;
  readonly #port: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  /** Ports of this host that requests of the one connection came from. */
  readonly #ports = new Set<number | undefined>();
  #asking: Promise<void> | undefined;
  #download: Promise<string> | undefined;
  #loaded = 0;
  #isOver = false;
  #sockets = '';
  #right = 0;
  #wrong: string | undefined;

  private constructor(guest: TestGuest, port: number) {
    this.#guest = guest;
    this.#port = port;
  }

  static async start(guest: TestGuest, port: number): Promise<WebClients> {
    await guest.copyIn(FOLDER, '/srv/haproxy');
    await guest.sh('sh /srv/haproxy/configure.sh');
    await guest.until('ss -tlnH sport = :8000 | grep .', 60);
    const clients = new WebClients(guest, port);
    clients.#sockets = await guest.sh(SOCKETS);
    assert.match(clients.#sockets, /admin\.sock .* s$/m);
    clients.#asking = clients.#ask();
    return clients;
  }

  get summary(): string {
    return `${this.#right} pages by ${this.#ports.size} connection(s), ${this.#loaded} bytes of the download`;
  }

  /** Begins a download that takes longer than the panic. */
  async download(): Promise<void> {
    const { response } = await answer({ port: this.#port, path: '/large', agent: false });
    const hash = createHash('sha256');
    this.#download = (async () => {
      for await (const part of response) {
        hash.update(part);
        this.#loaded += part.length;
      }
      return hash.digest('hex');
    })().catch((error) => String(error));
    const end = performance.now() + 60_000;
    while (this.#loaded === 0 && performance.now() < end) await sleep(100);
  }

  /** The download is under way. */
  isLoading(): void {
    assert.ok(this.#loaded > 0 && this.#loaded < LARGE_BYTES, this.summary);
  }

  /** The sockets that were bound under other names than those of their files. */
  async hasItsSockets(): Promise<void> {
    assert.equal(await this.#guest.sh(SOCKETS), this.#sockets);
    assert.equal(await this.#guest.sh(`python3 -c '${ASK}'`), 'Name: HAProxy');
  }

  async #ask(): Promise<void> {
    for (let i = 0; !this.#isOver; i++) {
      const number = i % PAGES;
      try {
        const { response, localPort } = await answer({
          port: this.#port,
          path: `/pages/${number}`,
          agent: this.#agent,
        });
        this.#ports.add(localPort);
        const text = await textOf(response);
        if (text !== page(number)) throw new Error(`page ${number} is '${text}' (${response.statusCode})`);
        this.#right += 1;
      } catch (error) {
        this.#wrong ??= `${error} (${this.summary})`;
        return;
      }
      await sleep(PACE_MILLISECONDS);
    }
  }

  /** Pages go on coming through the one connection. */
  async goesOn(): Promise<void> {
    const [right, end] = [this.#right + 5, performance.now() + 120_000];
    while (this.#wrong === undefined && this.#right < right && performance.now() < end) await sleep(100);
    assert.equal(this.#wrong, undefined);
    assert.ok(this.#right >= right, this.summary);
    assert.equal(this.#ports.size, 1);
  }

  /** The download that was under way has every byte. */
  async downloads(): Promise<void> {
    const expected = await this.#guest.sh("sha256sum /var/www/html/large | cut -d' ' -f1");
    assert.equal(await this.#download, expected, this.summary);
  }

  /** HAProxy reads its configuration again, with new workers, and serves. */
  async reloads(): Promise<void> {
    const main = 'systemctl show --value --property=MainPID haproxy';
    const before = await this.#guest.sh(main);
    this.#isOver = true;
    await this.#asking;
    await this.#guest.sh('systemctl reload haproxy');
    assert.equal(await this.#guest.sh(main), before);
    const { response } = await answer({ port: this.#port, path: '/pages/7', agent: false });
    assert.equal(await textOf(response), page(7));
  }

  close(): void {
    this.#isOver = true;
    this.#agent.destroy();
  }
}
