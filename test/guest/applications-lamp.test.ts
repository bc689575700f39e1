// Boots one armed guest with MariaDB, and with PHP in Apache, as Debian packages them and by their own units;
// clients outside of it are in the middle of something with each. Kills its kernel, and lets every client go
// on and check each answer. Not in the guest of the other applications, where nginx has Apache's port. Only
// where nothing is left out: it takes an image of its own.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { freePort } from '../../lab/ports.ts';
import type { IncidentReport, ProcessReport } from '../../src/report/schema.ts';
import { MariadbClients } from './applications/mariadb.ts';
import { assertWhole } from './applications/outcomes.ts';
import { PhpClients } from './applications/php.ts';
import { bootTestGuest, isWhole, release, type TestGuest } from './harness.ts';

const PACKAGES = ['mariadb-server', 'apache2', 'libapache2-mod-php', 'php-apcu'];
const UNITS = ['mariadb', 'apache2'] as const;
type Unit = (typeof UNITS)[number];

suite(`MariaDB and PHP with ${release}`, { skip: !isWhole || release !== 'trixie' }, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let sql = 0;
  let mariadb: MariadbClients;
  let php: PhpClients;
  const checked = new Map<Unit, string>();
  const mainPids = new Map<Unit, string>();

  const ofUnit = (name: Unit): ProcessReport[] =>
    report.processes.filter(({ unit }) => unit === `${name}.service`);
  const mainPid = (name: Unit): Promise<string> =>
    guest.sh(`systemctl show --value --property=MainPID ${name}`);

  before(async () => {
    sql = await freePort();
    let http = await freePort();
    while (http === sql) http = await freePort();
    const forwards = [
      { host: sql, guest: 3306 },
      { host: http, guest: 80 },
    ];
    guest = await bootTestGuest('lamp', { packages: PACKAGES, forwards });
    mariadb = await MariadbClients.start(guest, sql);
    php = await PhpClients.start(guest, http);
    console.log(await guest.sh(`otherworld protect ${UNITS.map((name) => `--unit ${name}`).join(' ')}`, 600));
    for (const name of UNITS) {
      mainPids.set(name, await mainPid(name));
      const { status, stdout, stderr } = await guest.exec(['otherworld', 'check', name], {
        timeoutSeconds: 300,
      });
      checked.set(name, `${status}\n${stdout}${stderr}`);
      console.log(`check ${name}: ${checked.get(name)}`);
    }
    await php.download();
    const panicked = guest.consoleSays(/Kernel panic/, 300).then(() => php.isLoading());
    const panic = guest.panic('sysrq');
    [report] = await Promise.all([panic, panicked]);
    console.log(`${mariadb.summary}; ${php.summary}`);
    console.log(await guest.sh('otherworld report'));
  });
  after(async () => {
    php?.close();
    await mariadb?.close();
    await guest?.down();
  });

  for (const name of UNITS) {
    test(`${name} comes back whole, with its unit as shipped`, async () => {
      assertWhole(ofUnit(name));
      assert.equal(await mainPid(name), mainPids.get(name));
      assert.equal(await guest.sh(`systemctl show --value --property=DropInPaths ${name}`), '');
    });

    test(`${name} has nothing that lasts and does not come back`, () => {
      // 4: of some things it depends on the moment.
      assert.match(checked.get(name) ?? '', /^[04]\n/);
    });
  }

  test('tables of MariaDB that are in memory alone have every row, with its indexes', async () => {
    await mariadb.hasItsMemory();
  });

  test('a transaction of InnoDB that was open is seen by nobody, and its lock is waited for', async () => {
    await mariadb.isAsBefore();
  });

  test('a transaction of InnoDB that was open is committed, with every row', async () => {
    await mariadb.commit();
  });

  test('a session of MariaDB that wrote all the time has each row once', async (t) => {
    await mariadb.endWriting(mariadb.acknowledged + 20);
    t.diagnostic(`${mariadb.acknowledged} rows`);
  });

  test('visits of a PHP session go on by the same connection, and are counted once', async (t) => {
    await php.goesOn();
    t.diagnostic(php.summary);
  });

  test('a download of 200 MB from Apache has every byte', async (t) => {
    await php.downloads();
    t.diagnostic(php.summary);
  });

  test('every PHP session has what was in it', async () => {
    await php.hasItsSessions();
  });

  test('the database of MariaDB is sound', async () => {
    await mariadb.isSound(sql);
  });

  test('what Apache had in memory alone is gone when it is started afresh', async () => {
    await php.startsAfresh();
  });

  test('nothing of it is left over', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
  });
});
