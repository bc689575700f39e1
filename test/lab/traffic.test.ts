import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BulkStream } from '../../lab/campaign/traffic/bulk.ts';
import { type Conversation, type Protocol, Requests } from '../../lab/campaign/traffic/conversation.ts';
import { namedFate } from '../../lab/campaign/traffic/outcome.ts';
import * as protocols from '../../lab/campaign/traffic/protocols.ts';
import { faultsOfCount, faultsOfSequence } from '../../lab/campaign/traffic/sequence.ts';
import { readDigest, readLog } from '../../lab/campaign/traffic/server-state.ts';
import { BLOCK } from '../../lab/campaign/traffic/stream.ts';
import { faultsOfLog, takenAndLeft } from '../../lab/campaign/traffic/talks.ts';
import { goesOnSince, waitForAll } from '../../lab/campaign/traffic/watch.ts';
import { repositoryRoot } from '../../lab/node-tree.ts';
import { freePort } from '../../lab/ports.ts';
import type { ProcessReport } from '../../src/report/schema.ts';

const SERVERS = join(repositoryRoot, 'lab/campaign/traffic/servers.py');
const HANG_SECONDS = 30;

suite("what a server has, compared with a client's record", () => {
  const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

  test('is right with all that was acknowledged, and a part of what was on its way', () => {
    for (const applied of [8, 9, 10]) assert.deepEqual(faultsOfSequence(upTo(applied), 8, 10), []);
    for (const count of [8, 9, 10]) assert.deepEqual(faultsOfCount(count, 8, 10), []);
  });

  test('shows a write that is lost, whether it was acknowledged or later ones were applied', () => {
    assert.deepEqual(faultsOfSequence(upTo(7), 8, 10), ['write 8 is lost, and it was acknowledged']);
    assert.deepEqual(faultsOfSequence([1, 2, 4], 2, 10), ['write 3 is lost, and write 4 was applied']);
    assert.match(faultsOfCount(7, 8, 10).join(), /^1 writes are lost/);
  });

  test('shows a write that was applied twice, out of order, or never sent', () => {
    assert.deepEqual(faultsOfSequence([1, 2, 2, 3], 3, 3), ['write 2 was applied more than once']);
    assert.deepEqual(faultsOfSequence([1, 3, 2], 3, 3), ['write 2 was applied after write 3']);
    assert.deepEqual(faultsOfSequence([1, 2, 3], 2, 2), ['write 3 was applied, and 2 were sent']);
    assert.match(faultsOfCount(11, 8, 10).join(), /^1 writes were applied more than once/);
  });

  test('tells the first of many faults, and how many there are', () => {
    const faults = faultsOfSequence([], 50, 50);
    assert.deepEqual([faults.length, faults.at(-1)], [4, '47 more like that']);
  });

  test('of a queue may lack the one that was on its way to who was reset, and no other', () => {
    const faults = (left: number[], isKept: boolean): string[] =>
      faultsOfSequence(takenAndLeft(3, left, isKept), 6, 6);
    assert.deepEqual(faults([4, 5, 6], true), []);
    assert.deepEqual(faults([5, 6], false), []);
    assert.deepEqual(faults([5, 6], true), ['write 4 is lost, and it was acknowledged']);
    assert.equal(faults([6], false).length, 2);
  });
});

suite('an answer that is lost, repeated or reordered is found', () => {
  const cases: readonly [protocol: Protocol, right: readonly string[][]][] = [
    [protocols.redisIncr('key'), [[':1'], [':2'], [':3']]],
    [protocols.redisRpush('key'), [[':1'], [':2'], [':3']]],
    [protocols.memcachedIncr('key', true), [['1'], ['2'], ['3']]],
    [
      protocols.redisSubscribe('key', () => 3),
      ['1', '2', '3'].map((n) => ['*3', '$7', 'message', '$3', 'key', '$1', n]),
    ],
    [protocols.redisBlpop('key', () => 3), ['1', '2', '3'].map((n) => ['*2', '$3', 'key', '$1', n])],
  ];
  for (const [protocol, [one = [], two = [], three = []]] of cases) {
    test(`by what is known of ${protocol.name}`, () => {
      const faults = (...answers: (readonly string[])[]): number =>
        answers.filter((lines, i) => protocol.judge(i + 1, lines) !== undefined).length;
      assert.equal(faults(one, two, three), 0);
      assert.notEqual(faults(one, three), 0, 'lost');
      assert.notEqual(faults(one, one, two), 0, 'repeated');
      assert.notEqual(faults(one, three, two), 0, 'reordered');
    });
  }
});

suite('what a report says of a connection', () => {
  const report = (more: Partial<ProcessReport>): ProcessReport => ({
    ...{ pid: 12, comm: 'redis', outcome: 'restored', reasons: [] },
    ...{ checks: [], repairs: [], inDoubt: [], notes: [] },
    ...more,
  });
  const loss = (port: number, address = '10.0.2.2') =>
    ({
      kind: 'connections',
      what: `the connection to ${address}:${port} is reset: it is one that ...`,
    }) as const;

  test('is that it is kept, if nothing is said of it', () => {
    assert.deepEqual(namedFate([report({ losses: [loss(400), loss(40001)] })], 4000, true), {
      fate: 'kept',
      why: [],
    });
  });

  test('is that it is reset, by its own port', () => {
    assert.equal(namedFate([report({ losses: [loss(4000)] })], 4000, true).fate, 'reset');
  });

  test('is nothing, if the one that it names is within the guest and has the same port', () => {
    const within = report({ losses: [loss(4000, '127.0.0.1'), loss(4000, '110.0.2.2')] });
    assert.equal(namedFate([within], 4000, true).fate, 'kept');
  });

  test('is no excuse where its server may lose no connection', () => {
    const { fate, why } = namedFate([report({ losses: [loss(4000)] })], 4000, false);
    assert.equal(fate, 'lost');
    assert.match(why.join('; '), /may not lose a connection; the connection to 10\.0\.2\.2:4000 is reset/);
  });

  test('is that its server is refused, with the reason', () => {
    assert.deepEqual(namedFate([report({ outcome: 'refused', reasons: ['has a leash'] })], 4000, true), {
      fate: 'refused',
      why: ['redis (12): has a leash'],
    });
  });

  test('is no excuse, if there is no reason, or its server failed, ended or is not named', () => {
    const processes = [report({ outcome: 'refused' }), report({ outcome: 'failed', reasons: ['no'] })];
    for (const process of [...processes, report({ ended: 'at once' })])
      assert.equal(namedFate([process], 4000, true).fate, 'lost');
    assert.equal(namedFate([], 4000, true).fate, 'lost');
  });
});

/** Lines or bytes that go through, and what becomes of them. */
type Damage = (piece: string, number: number) => readonly string[];
const intact: Damage = (piece) => [piece];

/** Sits between clients and a server, and damages the lines of requests, of answers, or pieces of bytes. */
class Between {
  port = 0;
  readonly #server: Server;
  readonly #sockets: Socket[] = [];

  constructor(to: number, requests: Damage, answers: Damage, isLines: boolean) {
    this.#server = createServer({ allowHalfOpen: true }, (client) => {
      const server = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true });
      this.#sockets.push(client, server);
      pass(client, server, requests, isLines);
      pass(server, client, answers, isLines);
    });
  }

  async listen(): Promise<void> {
    this.port = await freePort();
    this.#server.listen(this.port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  /** Nothing goes through any more. */
  stall(): void {
    for (const socket of this.#sockets) socket.removeAllListeners('data').resume();
  }

  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function pass(from: Socket, to: Socket, damage: Damage, isLines: boolean): void {
  let rest = '';
  let number = 0;
  const write = (piece: string): void => {
    for (const one of damage(piece, ++number)) to.write(Buffer.from(one, 'latin1'));
  };
  from.on('data', (data) => {
    const text = data.toString('latin1');
    if (!isLines) return write(text);
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) write(`${line}\n`);
  });
  from.on('end', () => to.end());
  from.on('error', () => to.destroy());
}

/** Does something at the piece of that number: with it and the one after it, if it takes two. */
const at = (place: number, change: (piece: string) => readonly string[]): Damage => {
  return (piece, number) => (number === place ? change(piece) : [piece]);
};
const lost = at(20, () => []);
const repeated = at(20, (piece) => [piece, piece]);
function reordered(): Damage {
  let held = '';
  return (piece, number) => {
    if (number === 20) held = piece;
    return number === 20 ? [] : number === 21 ? [piece, held] : [piece];
  };
}

suite('a client of servers on this host', () => {
  const ports = { log: 0, stream: 0 };
  const children: ChildProcess[] = [];
  let count = 0;

  before(async () => {
    for (const kind of ['log', 'stream'] as const) {
      ports[kind] = await freePort();
      children.push(spawn('python3', [SERVERS, kind, String(ports[kind])], { stdio: 'inherit' }));
      while (!(await connects(ports[kind]))) await sleep(50);
    }
  });
  after(() => {
    for (const child of children) child.kill();
  });

  const drive = async (one: Conversation, until: () => boolean): Promise<void> => {
    const end = performance.now() + HANG_SECONDS * 1000;
    while (!until() && one.wire.ended === undefined && performance.now() < end) {
      one.ask();
      await sleep(1);
    }
  };

  /** Appends through what damages, and compares. @returns faults of the answers, and of the log */
  async function append(requests: Damage, answers: Damage): Promise<{ answers: string; log: string }> {
    const between = new Between(ports.log, requests, answers, true);
    await between.listen();
    const name = `client${++count}`;
    const positions: number[] = [];
    const client = await Requests.to(between.port, protocols.logAppends(name, positions, true));
    await drive(client, () => client.answered >= 100 || client.faults.length > 0);
    client.finish();
    await drive(client, () => client.isDone || client.faults.length > 0);
    const entries = await readLog(ports.log);
    const { answered, asked } = client;
    between.close();
    client.wire.close();
    return {
      answers: client.faults.join('; '),
      log: faultsOfLog(entries, name, positions, answered, asked).join('; '),
    };
  }

  test('finds nothing wrong where nothing is', async () => {
    assert.deepEqual(await append(intact, intact), { answers: '', log: '' });
  });

  test('finds an answer that is lost, repeated or reordered', async () => {
    for (const damage of [lost, repeated, reordered()])
      assert.match((await append(intact, damage)).answers, /^answer 2[01]: /);
  });

  test('finds a request that is lost, repeated or reordered, by the log as well', async () => {
    assert.match((await append(lost, intact)).log, /write 20 is lost/);
    assert.match((await append(repeated, intact)).log, /write 20 was applied more than once/);
    assert.match((await append(reordered(), intact)).log, /write 20 was applied after write 21/);
  });

  test('finds other bytes in a request, by the answer and by the log', async () => {
    const other = at(20, (line) => [line.replace(/.(?=\n$)/, '~')]);
    const { answers, log } = await append(other, intact);
    assert.match(answers, /^answer 20: /);
    assert.match(log, /write 20 has other bytes/);
  });

  /** @returns faults of what came, and of the SHA-256 of both ends */
  async function transfer(up: Damage, down: Damage): Promise<{ came: string; digest: string }> {
    const between = new Between(ports.stream, up, down, false);
    await between.listen();
    const name = `bulk${++count}`;
    const client = await BulkStream.to(between.port, name, 7 * count);
    await drive(client, () => client.asked >= 10 && client.wire.got > 10 * BLOCK);
    client.finish();
    await drive(client, () => client.isDone);
    const digest = client.compare(await readDigest(ports.stream, name)).join('; ');
    between.close();
    client.wire.close();
    return { came: client.faults.join('; '), digest };
  }
  const byteLost = at(5, (piece) => [piece.slice(1)]);
  const byteRepeated = at(5, (piece) => [piece.slice(0, 1), piece]);

  test('finds nothing wrong with streams where nothing is', async () => {
    assert.deepEqual(await transfer(intact, intact), { came: '', digest: '' });
  });

  test('finds a byte that is lost or repeated on the way up', async () => {
    for (const damage of [byteLost, byteRepeated])
      assert.match((await transfer(damage, intact)).digest, /the server got \d+ bytes/);
  });

  test('finds a byte that is lost or repeated on the way down, and where', async () => {
    for (const damage of [byteLost, byteRepeated]) {
      const { came, digest } = await transfer(intact, damage);
      assert.match(came, /other bytes than were sent from byte \d+ on/);
      assert.match(digest, /the server sent \d+ bytes/);
    }
  });

  test('finds that a connection stands still, or was ended', async () => {
    const between = new Between(ports.log, intact, intact, true);
    await between.listen();
    const clients: Requests[] = [];
    for (const name of ['stands', 'ends'])
      clients.push(await Requests.to(between.port, protocols.logAppends(name, [], true)));
    const [stands] = clients;
    assert.ok(stands);
    for (const client of clients) client.ask();
    for (const client of clients) await drive(client, () => client.answered > 0);
    const clock = (): number => performance.now() / 1000;
    const wait = (): Promise<Map<Conversation, string>> =>
      waitForAll(clients, goesOnSince(clients), 1, clock);
    assert.deepEqual([...(await wait()).values()], []);
    between.stall();
    const stalled = await wait();
    assert.match([...stalled.values()].join('; '), /^it hangs: .*; it hangs: /);
    between.cut();
    await drive(stands, () => false);
    assert.match(
      (await wait()).get(stands) ?? '',
      /^it was ended \((ECONNRESET|end)\) after \d+ s of silence, and the report does not say so$/,
    );
    between.close();
    for (const client of clients) client.wire.close();
  });
});

/** Whether somebody listens. */
async function connects(port: number): Promise<boolean> {
  const socket = connect({ port, host: '127.0.0.1' });
  const isThere = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
  });
  socket.destroy();
  return isThere;
}
