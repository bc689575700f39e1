import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { TestGuest } from '../harness.ts';

const UNIT = 'postgresql@17-main';
const PACE_MILLISECONDS = 300;
/** Rows that a transaction has made and not committed when the kernel dies. */
const OPEN_ROWS = 2000;
const SHARE = 500;

const CONFIGURE = join(import.meta.dirname, '../../../examples/postgresql/outside.sh');

/** Sessions of one PostgreSQL in a guest, from outside of it, each in the middle of something. */
export class PostgresqlClients {
  readonly #guest: TestGuest;
  readonly #port: number;
  readonly #clients: pg.Client[] = [];
  readonly errors: string[] = [];
  readonly notifications: string[] = [];
  #writing: Promise<void> | undefined;
  #waiting: Promise<string> | undefined;
  #isOver = false;
  #acknowledged = 0;

  private constructor(guest: TestGuest, port: number) {
    this.#guest = guest;
    this.#port = port;
  }

  static async start(guest: TestGuest, port: number): Promise<PostgresqlClients> {
    await guest.copyIn(CONFIGURE, '/srv/outside.sh');
    await guest.sh('sh /srv/outside.sh');
    await guest.until(`runuser -u postgres -- pg_isready -h 10.0.2.15`, 120);
    const clients = new PostgresqlClients(guest, port);
    await clients.#begin();
    return clients;
  }

  /** Of single rows that are committed one by one, without a pause but that of the pace. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({
      host: '127.0.0.1',
      port: this.#port,
      user: 'postgres',
      database: 'postgres',
    });
    const number = this.#clients.push(client);
    client.on('error', (error) => this.errors.push(`connection ${number}: ${error.message}`));
    client.on('notification', ({ payload }) => this.notifications.push(payload ?? ''));
    await client.connect();
    return client;
  }

  #client(number: number): pg.Client {
    return this.#clients[number] ?? assert.fail(`connection ${number}`);
  }

  #insert(first: number, count: number): Promise<pg.QueryResult> {
    const text = 'INSERT INTO open SELECT i, md5(i::text) FROM generate_series($1::int, $2::int) i';
    return this.#client(0).query({ name: 'insert', text, values: [first, first + count - 1] });
  }

  async #begin(): Promise<void> {
    const holder = await this.#connect();
    await holder.query('CREATE TABLE open (id int PRIMARY KEY, word text); CREATE TABLE single (id int)');
    await holder.query('BEGIN; CREATE TEMPORARY TABLE own (id int); INSERT INTO own VALUES (42)');
    await this.#insert(1, OPEN_ROWS - SHARE);
    await holder.query('SELECT pg_advisory_lock(7)');
    await holder.query('DECLARE walk CURSOR FOR SELECT id FROM open ORDER BY id; FETCH 10 FROM walk');
    const listener = await this.#connect();
    await listener.query('LISTEN news');
    const notifier = await this.#connect();
    await notifier.query("NOTIFY news, 'before'");
    const waiter = await this.#connect();
    this.#waiting = waiter.query('SELECT pg_advisory_lock(7)').then(
      () => 'has it',
      (error) => String(error),
    );
    const writer = await this.#connect();
    this.#writing = this.#write(writer);
  }

  async #write(writer: pg.Client): Promise<void> {
    try {
      while (!this.#isOver) {
        await writer.query('INSERT INTO single VALUES ($1)', [this.#acknowledged + 1]);
        this.#acknowledged += 1;
        await sleep(PACE_MILLISECONDS);
      }
    } catch (error) {
      this.errors.push(`writer: ${error}`);
    }
  }

  /** Sessions wait for one another as they did, and nobody sees what is not committed. */
  async isAsBefore(): Promise<void> {
    const [, , notifier] = this.#clients;
    const seen = await notifier?.query('SELECT count(*)::int AS rows FROM open');
    assert.equal(seen?.rows[0].rows, 0);
    assert.equal(await Promise.race([this.#waiting, sleep(500, 'waits')]), 'waits');
    await notifier?.query("NOTIFY news, 'after'");
    const end = performance.now() + 60_000;
    while (this.notifications.length < 2 && performance.now() < end) await sleep(100);
    assert.deepEqual(this.notifications, ['before', 'after']);
  }

  /** The transaction goes on with its statement, its cursor and its own table, and is committed. */
  async commit(): Promise<void> {
    const holder = this.#client(0);
    await this.#insert(OPEN_ROWS - SHARE + 1, SHARE);
    const { rows: walked } = await holder.query('FETCH 5 FROM walk');
    assert.deepEqual(
      walked,
      [11, 12, 13, 14, 15].map((id) => ({ id })),
    );
    const { rows: own } = await holder.query('SELECT id FROM own');
    assert.deepEqual(own, [{ id: 42 }]);
    await holder.query('COMMIT');
    const { rows } = await this.#client(2).query(
      'SELECT count(*)::int AS rows, bool_and(word = md5(id::text)) AS right FROM open',
    );
    assert.deepEqual(rows, [{ rows: OPEN_ROWS, right: true }]);
    await holder.query('SELECT pg_advisory_unlock(7)');
    assert.equal(await this.#waiting, 'has it');
  }

  /** Every row that was acknowledged is there once, and no other one. */
  async endWriting(atLeast: number): Promise<void> {
    const end = performance.now() + 60_000;
    while (this.#acknowledged < atLeast && performance.now() < end) await sleep(100);
    this.#isOver = true;
    await this.#writing;
    assert.deepEqual(this.errors, []);
    assert.ok(this.#acknowledged >= atLeast);
    const { rows } = await this.#client(2).query(
      'SELECT count(*)::int AS rows, count(DISTINCT id)::int AS ids, max(id) AS last FROM single',
    );
    const all = this.#acknowledged;
    assert.deepEqual(rows, [{ rows: all, ids: all, last: all }]);
  }

  /** By its own tool, and once more when it has been started afresh. */
  async isSound(): Promise<void> {
    await this.#client(2).query('CHECKPOINT');
    const check =
      'runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_amcheck --all --install-missing --heapallindexed';
    assert.equal(await this.#guest.sh(`cd /tmp; ${check}`, 300), '');
    this.close();
    await this.#guest.sh(`systemctl restart ${UNIT}`, 120);
    const count = 'SELECT count(*) FROM open';
    assert.equal(
      await this.#guest.sh(`cd /tmp; runuser -u postgres -- psql -Atc '${count}'`),
      String(OPEN_ROWS),
    );
  }

  close(): void {
    this.#isOver = true;
    for (const client of this.#clients) void client.end().catch(() => undefined);
  }
}
