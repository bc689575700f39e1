import assert from 'node:assert/strict';
import { join } from 'node:path';
import { buildRuntimes } from '../../../lab/demo/programs.ts';
import { freePort } from '../../../lab/ports.ts';
import { stderrProgress } from '../../../lab/progress.ts';
import { release, type TestGuest } from '../harness.ts';
import { SumsClient } from './sums-client.ts';

const DIRECTORY = '/srv/runtimes';

/** How each is started, with its port behind it. */
export const RUNTIMES = {
  python: `python3 ${DIRECTORY}/sums.py`,
  java: `java -cp ${DIRECTORY} Sums`,
  go: `${DIRECTORY}/sums`,
  // The same listening with TCP alone.
  'go without MPTCP': `env GODEBUG=multipathtcp=0 ${DIRECTORY}/sums`,
  erlang: `erl -noinput -pa ${DIRECTORY} -s sums main`,
  node: `node ${DIRECTORY}/sums.mjs`,
} as const;
export type Runtime = keyof typeof RUNTIMES;
export const RUNTIME_NAMES = Object.keys(RUNTIMES) as Runtime[];
const FIRST_PORT = 7001;

/** Ports of this host, one for each of them. */
export async function runtimeForwards(
  taken: ReadonlySet<number>,
): Promise<{ host: number; guest: number }[]> {
  const ports = new Set(taken);
  const forwards = [];
  for (const [i] of RUNTIME_NAMES.entries()) {
    let host = await freePort();
    while (ports.has(host)) host = await freePort();
    ports.add(host);
    forwards.push({ host, guest: FIRST_PORT + i });
  }
  return forwards;
}

/** Servers of examples/runtimes in a guest, each with a client outside of it. */
export class Runtimes {
  readonly pids = new Map<Runtime, number>();
  readonly #clients = new Map<Runtime, SumsClient>();

  /** @param forwards what `runtimeForwards` gave */
  static async start(guest: TestGuest, forwards: readonly { host: number }[]): Promise<Runtimes> {
    const runtimes = new Runtimes();
    await guest.copyIn(await buildRuntimes(release, stderrProgress()), DIRECTORY);
    for (const name of ['sums.py', 'sums.mjs', 'sums.erl'])
      await guest.copyIn(
        join(import.meta.dirname, '../../../examples/runtimes', name),
        `${DIRECTORY}/${name}`,
      );
    await guest.sh(`cd ${DIRECTORY} && erlc sums.erl`);
    for (const [i, name] of RUNTIME_NAMES.entries()) {
      const run = `exec ${RUNTIMES[name]} ${FIRST_PORT + i} >/srv/sums-${i}.log 2>&1`;
      runtimes.pids.set(name, await guest.background(run));
      await guest.until(`ss -tlnH sport = :${FIRST_PORT + i} | grep . || ! cat /srv/sums-${i}.log`, 120);
      const port = forwards[i]?.host ?? assert.fail(name);
      const client = new SumsClient(port);
      runtimes.#clients.set(name, client);
      assert.equal(await client.hears(3, 60), undefined, name);
    }
    return runtimes;
  }

  client(name: Runtime): SumsClient {
    return this.#clients.get(name) ?? assert.fail(name);
  }

  pid(name: Runtime): number {
    return this.pids.get(name) ?? assert.fail(name);
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
  }
}
