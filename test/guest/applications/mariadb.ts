import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import mysql from 'mysql2/promise';
import type { TestGuest } from '../harness.ts';

const CONFIGURE = join(import.meta.dirname, '../../../examples/mariadb/outside.sh');
const MEMORY_ROWS = 20_000;
/** Rows that a transaction has made and not committed when the kernel dies. */
const OPEN_ROWS = 1000;
const SHARE = 250;
const PACE_MILLISECONDS = 300;
/** The row that the transaction has changed, and that another session waits for. */
const CHANGED = 7;
/** InnoDB's limit of 50 s on waiting for a row is one on the wall clock. */
const LOCK_SECONDS = 3600;
/** What mariadb-check says of the MEMORY table. */
const UNCHECKED = ['kept.in_memory', "note     : The storage engine for the table doesn't support check"];

type Row = Record<string, unknown>;
const NAMES = ['holder', 'looker', 'waiter', 'writer'] as const;
type Name = (typeof NAMES)[number];

/** What a table of the MEMORY engine has in it. */
interface Content {
  readonly rows: number;
  /** What CHECKSUM TABLE says. */
  readonly checksum: unknown;
  /** SHA-256 of all rows, as they come over the network. */
  readonly sha256: string;
}

/**
 * Sessions of one MariaDB in a guest, from outside of it: one is in a transaction, another waits for it, and
 * one commits row after row.
 */
export class MariadbClients {
  readonly #guest: TestGuest;
  readonly #sessions = new Map<Name, mysql.Connection>();
  readonly #ids = new Map<Name, unknown>();
  readonly errors: string[] = [];
  #waiting: Promise<string> | undefined;
  #inMemory: Content | undefined;
  #writing: Promise<void> | undefined;
  #isOver = false;
  #acknowledged = 0;

  private constructor(guest: TestGuest) {
    this.#guest = guest;
  }

  /** @param port of this host, which leads to MariaDB's */
  static async start(guest: TestGuest, port: number): Promise<MariadbClients> {
    await guest.copyIn(CONFIGURE, '/srv/outside.sh');
    await guest.sh('sh /srv/outside.sh', 300);
    const clients = new MariadbClients(guest);
    for (const name of NAMES) await clients.#connect(name, port);
    await clients.#fill();
    await clients.#begin();
    return clients;
  }

  get summary(): string {
    return `MEMORY: ${JSON.stringify(this.#inMemory)}, ${OPEN_ROWS - SHARE} rows not committed, ${this.#acknowledged} single rows`;
  }

  /** Of single rows that are committed one by one, without a pause but that of the pace. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  async #connect(name: Name, port: number): Promise<void> {
    const session = await mysql.createConnection({
      host: '127.0.0.1',
      port,
      connectTimeout: 120_000,
      user: 'outside',
      password: 'outside',
    });
    this.#sessions.set(name, session);
    session.on('error', (error: Error) => this.errors.push(`${name}: ${error.message}`));
    const [{ id } = assert.fail(name)] = await this.#rows(name, 'SELECT CONNECTION_ID() AS id');
    this.#ids.set(name, id);
  }

  #session(name: Name): mysql.Connection {
    return this.#sessions.get(name) ?? assert.fail(name);
  }

  async #rows(name: Name, sql: string): Promise<Row[]> {
    const [rows] = await this.#session(name).query<mysql.RowDataPacket[]>(sql);
    return rows.map((row) => ({ ...row }));
  }

  async #run(name: Name, ...statements: readonly string[]): Promise<void> {
    for (const statement of statements) await this.#session(name).query(statement);
  }

  async #fill(): Promise<void> {
    await this.#run(
      'looker',
      'CREATE DATABASE kept',
      'CREATE TABLE kept.in_memory (id INT PRIMARY KEY, word CHAR(64), number DOUBLE, KEY (number) USING BTREE) ENGINE=MEMORY',
      `INSERT INTO kept.in_memory SELECT seq, SHA2(seq, 256), SQRT(seq) FROM kept.seq_1_to_${MEMORY_ROWS}`,
      'DELETE FROM kept.in_memory WHERE id % 10 = 3',
      'CREATE TABLE kept.made (id INT PRIMARY KEY, word CHAR(64)) ENGINE=InnoDB',
      'CREATE TABLE kept.single (id INT) ENGINE=InnoDB',
      'CREATE TABLE kept.changed (id INT PRIMARY KEY, word VARCHAR(64)) ENGINE=InnoDB',
      "INSERT INTO kept.changed SELECT seq, 'before' FROM kept.seq_1_to_20",
    );
    this.#inMemory = await this.#content();
  }

  async #begin(): Promise<void> {
    await this.#run(
      'holder',
      'BEGIN',
      "SET @own = 'a variable of this session'",
      'CREATE TEMPORARY TABLE kept.own (id INT) ENGINE=MEMORY',
      'INSERT INTO kept.own VALUES (42)',
      `UPDATE kept.changed SET word = 'by the transaction' WHERE id = ${CHANGED}`,
      'SAVEPOINT half',
    );
    await this.#insert(1, OPEN_ROWS - SHARE);
    await this.#run('waiter', `SET SESSION innodb_lock_wait_timeout = ${LOCK_SECONDS}`);
    const change = `UPDATE kept.changed SET word = CONCAT(word, ', then by who waited') WHERE id = ${CHANGED}`;
    this.#waiting = this.#session('waiter')
      .query<mysql.ResultSetHeader>(change)
      .then(
        ([{ affectedRows }]) => `has changed ${affectedRows}`,
        (error) => String(error),
      );
    await this.#guest.until(
      'mariadb -NBe "SELECT trx_state FROM information_schema.innodb_trx" | grep LOCK',
      60,
    );
    this.#writing = this.#write();
  }

  async #write(): Promise<void> {
    try {
      while (!this.#isOver) {
        await this.#session('writer').execute('INSERT INTO kept.single VALUES (?)', [this.#acknowledged + 1]);
        this.#acknowledged += 1;
        await sleep(PACE_MILLISECONDS);
      }
    } catch (error) {
      this.errors.push(`writer: ${error}`);
    }
  }

  /** By a statement that the server has prepared once, before the panic. */
  async #insert(first: number, count: number): Promise<void> {
    for (let id = first; id < first + count; id++)
      await this.#session('holder').execute('INSERT INTO kept.made VALUES (?, SHA2(?, 256))', [id, id]);
  }

  async #content(): Promise<Content> {
    const [{ Checksum: checksum } = assert.fail()] = await this.#rows(
      'looker',
      'CHECKSUM TABLE kept.in_memory EXTENDED',
    );
    const rows = await this.#rows('looker', 'SELECT * FROM kept.in_memory ORDER BY id');
    const sha256 = createHash('sha256').update(JSON.stringify(rows)).digest('hex');
    return { rows: rows.length, checksum, sha256 };
  }

  /** The same sessions, and the same content in memory, in whatever order its indexes give it. */
  async hasItsMemory(): Promise<void> {
    assert.equal(this.#inMemory?.rows, MEMORY_ROWS * 0.9);
    assert.deepEqual(await this.#content(), this.#inMemory);
    const ordered = await this.#rows(
      'looker',
      'SELECT COUNT(*) AS n FROM kept.in_memory FORCE INDEX (number) WHERE number BETWEEN 10 AND 20',
    );
    // Numbers from 100 to 400, but for those that end in 3.
    assert.deepEqual(ordered, [{ n: 301 - 30 }]);
    assert.deepEqual(await this.#rows('looker', 'SELECT CONNECTION_ID() AS id'), [
      { id: this.#ids.get('looker') },
    ]);
  }

  /** Nobody sees what is not committed, and who waits for it waits. */
  async isAsBefore(): Promise<void> {
    assert.deepEqual(await this.#rows('looker', 'SELECT COUNT(*) AS n FROM kept.made'), [{ n: 0 }]);
    assert.deepEqual(await this.#rows('looker', `SELECT word FROM kept.changed WHERE id = ${CHANGED}`), [
      { word: 'before' },
    ]);
    assert.equal(await Promise.race([this.#waiting, sleep(1000, 'waits')]), 'waits');
    assert.deepEqual(this.errors, []);
  }

  /** The transaction goes on, in its session, and is committed with every row. */
  async commit(): Promise<void> {
    assert.deepEqual(await this.#rows('holder', 'SELECT CONNECTION_ID() AS id, @own AS own'), [
      { id: this.#ids.get('holder'), own: 'a variable of this session' },
    ]);
    assert.deepEqual(await this.#rows('holder', 'SELECT id FROM kept.own'), [{ id: 42 }]);
    await this.#insert(OPEN_ROWS - SHARE + 1, SHARE);
    await this.#run('holder', 'COMMIT');
    assert.equal(await this.#waiting, 'has changed 1');
    await this.#areCommitted();
  }

  /** Every row that was acknowledged is there once, and no other one. */
  async endWriting(atLeast: number): Promise<void> {
    const end = performance.now() + 240_000;
    while (this.#acknowledged < atLeast && this.errors.length === 0 && performance.now() < end)
      await sleep(100);
    this.#isOver = true;
    await this.#writing;
    assert.deepEqual(this.errors, []);
    assert.ok(this.#acknowledged >= atLeast);
    const all = this.#acknowledged;
    assert.deepEqual(
      await this.#rows(
        'looker',
        'SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS ids, MAX(id) AS last FROM kept.single',
      ),
      [{ n: all, ids: all, last: all }],
    );
  }

  async #areCommitted(): Promise<void> {
    const right =
      'SELECT COUNT(*) AS n, CAST(SUM(word = SHA2(id, 256)) AS INT) AS `right`, MAX(id) AS last FROM kept.made';
    assert.deepEqual(await this.#rows('looker', right), [
      { n: OPEN_ROWS, right: OPEN_ROWS, last: OPEN_ROWS },
    ]);
    const changed = `SELECT word FROM kept.changed WHERE id = ${CHANGED}`;
    assert.deepEqual(await this.#rows('looker', changed), [
      { word: 'by the transaction, then by who waited' },
    ]);
  }

  /** By its own tool; and once more when it has been started afresh, which loses what is in memory alone. */
  async isSound(port: number): Promise<void> {
    await this.#checkAll();
    await this.close();
    this.#sessions.clear();
    await this.#guest.sh('systemctl restart mariadb', 300);
    await this.#connect('looker', port);
    await this.#areCommitted();
    assert.deepEqual(await this.#rows('looker', 'SELECT COUNT(*) AS n FROM kept.in_memory'), [{ n: 0 }]);
    await this.#checkAll();
  }

  async #checkAll(): Promise<void> {
    const said = await this.#guest.sh('mariadb-check --all-databases --extended 2>&1', 600);
    for (const table of ['kept.made', 'kept.changed', 'kept.single'])
      assert.match(said, new RegExp(`^${table} +OK$`, 'm'));
    const others = said.split('\n').filter((line) => !/ OK$/.test(line));
    // There is nothing to check of a table that is in memory alone: hasItsMemory has compared that.
    assert.deepEqual(others, UNCHECKED, said);
  }

  async close(): Promise<void> {
    this.#isOver = true;
    for (const session of this.#sessions.values()) session.destroy();
  }
}
