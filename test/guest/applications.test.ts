// Boots one armed guest with applications as Debian packages them, and with clients outside of it that are in
// the middle of something with each; kills its kernel, and lets every client go on and check each answer.
// Only where nothing is left out: it takes an image of its own.
import assert from 'node:assert/strict';
import { after, before, suite, type TestContext, test } from 'node:test';
import { freePort } from '../../lab/ports.ts';
import type { IncidentReport, ProcessReport } from '../../src/report/schema.ts';
import { Computations } from './applications/computations.ts';
import { assertWhole } from './applications/outcomes.ts';
import { PostgresqlClients } from './applications/postgresql.ts';
import { RUNTIME_NAMES, type Runtime, Runtimes, runtimeForwards } from './applications/runtimes.ts';
import { WebClients } from './applications/web.ts';
import { bootTestGuest, isWhole, release, type TestGuest } from './harness.ts';

const PACKAGES = ['postgresql', 'haproxy', 'nginx', 'nodejs', 'openjdk-21-jre-headless', 'erlang-base'];
const UNITS = ['postgresql@17-main', 'haproxy', 'nginx'] as const;
type Unit = (typeof UNITS)[number];
/** So much that Java takes the garbage collector that it takes on servers. */
const MEMORY_MIB = 3072;
/** Those that hold what cannot come back: for nothing else. */
const REFUSED: Readonly<Partial<Record<Runtime, RegExp>>> = {
  go: /socket of MPTCP/,
};
/** Seconds of the host until a client that was there before the panic has its next answers. */
const PATIENCE = 240;

suite(`applications with ${release}`, { skip: !isWhole || release !== 'trixie' }, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let postgresql: PostgresqlClients;
  let web: WebClients;
  let runtimes: Runtimes;
  let computations: Computations;
  let screen = '';
  const checked = new Map<string, string>();

  const check = async (what: string): Promise<void> => {
    const { status, stdout, stderr } = await guest.exec(['sh', '-c', `otherworld check ${what}`], {
      timeoutSeconds: 300,
    });
    checked.set(what, `${status}\n${stdout}${stderr}`);
    console.log(`check ${what}: ${checked.get(what)}`);
  };
  const ofUnit = (name: Unit): ProcessReport[] =>
    report.processes.filter(({ unit }) => unit === `${name}.service`);
  const outcomes = (processes: readonly ProcessReport[]) =>
    processes.map(({ comm, outcome, fate, reasons }) => ({ comm, outcome, fate, reasons }));
  const withPid = (pid: number | undefined): ProcessReport[] =>
    report.processes.filter((process) => process.pid === pid);

  before(async () => {
    const [sql, http] = [await freePort(), await freePort()];
    const runtimePorts = await runtimeForwards(new Set([sql, http]));
    const forwards = [{ host: sql, guest: 5432 }, { host: http, guest: 8000 }, ...runtimePorts];
    guest = await bootTestGuest('applications', { packages: PACKAGES, memoryMiB: MEMORY_MIB, forwards });
    await check('haproxy');
    postgresql = await PostgresqlClients.start(guest, sql);
    web = await WebClients.start(guest, http);
    runtimes = await Runtimes.start(guest, runtimePorts);
    computations = await Computations.start(guest);
    const pids = [
      ...runtimes.pids.values(),
      computations.pids.get('protected'),
      '$(tmux display -p "#{pid}")',
    ];
    const units = UNITS.map((name) => `--unit ${name}`).join(' ');
    console.log(
      await guest.sh(`otherworld protect ${units} ${pids.map((pid) => `--pid ${pid}`).join(' ')}`, 600),
    );
    await check('');
    await computations.compute();
    screen = await computations.screen();
    await web.download();
    assert.deepEqual(await computations.done(), []);
    web.isLoading();
    const { acknowledged } = postgresql;
    console.log(`before the panic: ${acknowledged} rows; ${web.summary}; ${screen}`);
    report = await guest.panic('sysrq');
    console.log(await guest.sh('otherworld report'));
  });
  after(async () => {
    postgresql?.close();
    web?.close();
    runtimes?.close();
    await guest?.down();
  });

  for (const name of UNITS) {
    test(`${name} comes back whole`, () => {
      assertWhole(ofUnit(name));
    });
  }

  test('HAProxy has nothing that lasts and does not come back, with its unit as shipped', () => {
    // 4: of some things it depends on the moment.
    assert.match(checked.get('haproxy') ?? '', /^[04]\n/);
  });

  test('sessions of PostgreSQL are in the middle of what they were in', async () => {
    await postgresql.isAsBefore();
  });

  test('a transaction of PostgreSQL that was open is committed, with every row', async () => {
    await postgresql.commit();
  });

  test('a session of PostgreSQL that wrote all the time has each row once', async (t) => {
    await postgresql.endWriting(postgresql.acknowledged + 20);
    t.diagnostic(`${postgresql.acknowledged} rows`);
  });

  test('HAProxy and nginx go on answering through the same connection', async (t) => {
    await web.goesOn();
    t.diagnostic(web.summary);
  });

  test('a download through HAProxy has every byte', async (t) => {
    await web.downloads();
    t.diagnostic(web.summary);
  });

  for (const name of RUNTIME_NAMES) {
    test(`${name}: its server goes on with its client, its timer and its memory`, async (t) => {
      await goesOn(name, t);
    });
  }

  async function goesOn(name: Runtime, t: TestContext): Promise<void> {
    const processes = withPid(runtimes.pid(name));
    t.diagnostic(JSON.stringify(outcomes(processes)));
    const [{ outcome, reasons } = assert.fail(name)] = processes;
    const why = REFUSED[name];
    if (why !== undefined) {
      assert.equal(outcome, 'refused');
      for (const reason of reasons) assert.match(reason, why);
      return;
    }
    assertWhole(processes);
    const client = runtimes.client(name);
    assert.equal(await client.hears(5, PATIENCE), undefined);
    assert.equal(await client.ends(PATIENCE), undefined);
    t.diagnostic(client.summary);
  }

  test('a shell in tmux and its screen are what they were', async () => {
    const processes = report.processes.filter(({ commandLine }) => /^(tmux|bash)/.test(commandLine ?? ''));
    assertWhole(processes);
    assert.equal(await computations.screen(), screen);
    await computations.shellGoesOn();
  });

  test('a computation that was not protected goes on from its checkpoint in memory', async () => {
    assert.deepEqual(withPid(computations.pids.get('checkpointed')), []);
    await computations.goOn();
  });

  test('computations come to the known result, to the last bit', async () => {
    assertWhole(withPid(computations.pids.get('protected')));
    for (const name of ['protected', 'tmux', 'checkpointed'] as const) await computations.isRight(name);
  });

  test('the sockets that HAProxy has renamed have their names, their files and their listener', async () => {
    await web.hasItsSockets();
  });

  test('HAProxy reads its configuration again', async () => {
    await web.reloads();
  });

  test('the database of PostgreSQL is sound', async () => {
    await postgresql.isSound();
  });

  test('nothing of it is left over', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
  });
});
