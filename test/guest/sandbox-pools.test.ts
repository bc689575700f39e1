// Boots one armed guest that panics under services that talk to each other over the loopback: in systemd's
// sandbox, each in its own, and without one. Who is back first has requests for who is not there yet.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';
import { SANDBOX, Services, unitFile } from './sandbox-services.ts';

const STORE = 7101;
const CACHE = 7102;
const LOST = 7103;
/** It is not there any more after a panic. */
const BEFORE = '/run/before-the-panic';
const PROGRAM = '/usr/bin/python3 /usr/local/bin/connections.py';
/** Less than a buffer. */
const LITTLE = 60_000;
/** More than the buffers of both ends take: 2.7 MB, of which nothing is read. */
const MUCH = 3_500_000;

/** A pool to a service in another sandbox, one connection that is full, and one to who is in none. */
const WEB = [
  `${PROGRAM} pool 127.0.0.1 ${STORE} /var/lib/web pool ${BEFORE} &`,
  `${PROGRAM} call 127.0.0.1 ${STORE} /var/lib/web full "told 70 ${MUCH}" &`,
  `exec ${PROGRAM} call 127.0.0.1 ${CACHE} /var/lib/web told "told 60 ${LITTLE}"`,
].join(' ');

const UNITS = {
  store: { command: `${PROGRAM} serve 127.0.0.1 ${STORE} /var/lib/store`, sandbox: SANDBOX },
  cache: { command: `${PROGRAM} serve 127.0.0.1 ${CACHE} /var/lib/cache`, sandbox: '' },
  // Its unit is changed before the panic: it starts afresh.
  lost: { command: `${PROGRAM} serve 127.0.0.1 ${LOST} /var/lib/lost`, sandbox: SANDBOX },
  web: { command: `/bin/sh -c '${WEB}'`, sandbox: SANDBOX },
  front: { command: `${PROGRAM} pool 127.0.0.1 ${STORE} /var/lib/front pool ${BEFORE}`, sandbox: '' },
  waits: { command: `${PROGRAM} wait 127.0.0.1 ${LOST} /var/lib/waits waits`, sandbox: '' },
} as const;
type Unit = keyof typeof UNITS;
const NAMES = Object.keys(UNITS) as Unit[];
const SERVERS = { store: STORE, cache: CACHE, lost: LOST } as const;
const KEPT = ['store', 'cache', 'web', 'front'] as const;

suite(`connections between services, each in its sandbox or in none, when ${release} panics`, {
  skip: release === 'bookworm',
}, () => {
  let guest: TestGuest;
  let services: Services<Unit>;
  let report: IncidentReport;
  const write = (name: Unit, sandbox: string): Promise<void> =>
    services.write(name, unitFile(UNITS[name].command, sandbox));
  const start = (...names: Unit[]): Promise<string> =>
    guest.sh(`systemctl -q enable --now ${names.join(' ')}`, 120);

  before(async () => {
    guest = await bootTestGuest('sandbox-pools', {});
    services = new Services(guest, NAMES);
    await guest.copyIn('test/guest/programs/connections.py', '/usr/local/bin/connections.py');
    for (const name of NAMES) await write(name, UNITS[name].sandbox);
    await guest.sh(`touch ${BEFORE}; systemctl daemon-reload`);
    await start('store', 'cache', 'lost');
    for (const [name, port] of Object.entries(SERVERS)) await services.said(`${name}/serve-${port}`);
    await start('web', 'front', 'waits');
    for (const name of ['web', 'front']) assert.equal(await services.said(`${name}/pool`), 'right 50 same');
    await services.said('waits/waits.at');
    await guest.until(`test "$(ss -tnH state fin-wait-2 dport = :${CACHE} | wc -l)" = 1`, 120);
    // It stands still: nobody reads what it sends.
    const full = `ss -tnH state established dport = :${STORE} | sort -n -k 2 | tail -1`;
    await guest.until(
      `a=$(${full}); sleep 3; [ "$a" = "$(${full})" ] && [ "$(echo $a | cut -d ' ' -f 2)" -gt 500000 ]`,
      300,
    );
    await services.notePids();
    await services.protect();
    await services.check(KEPT);
    await write('lost', 'PrivateTmp=yes');
    await guest.sh('sync');
    report = await guest.panic('sysrq');
  });
  after(() => guest?.down());

  for (const name of KEPT) {
    test(`come back with ${name}`, () => services.assertBack(report, name));
  }

  test('lose no request and repeat none, of those that were sent before the other end was back', async () => {
    for (const name of ['web', 'front']) {
      await guest.until(`grep -v '^right 50 ' /var/lib/${name}/pool`, 240);
      assert.equal(await services.said(`${name}/pool`), 'right 100 same', name);
    }
  });

  test('keep what is in the queues of both ends', async () => {
    await guest.sh('touch /var/lib/store/go /var/lib/cache/go');
    for (const name of ['web/told', 'cache/told-served'])
      assert.equal(await services.said(name), `right ${LITTLE}`, name);
    for (const name of ['web/full', 'store/full-served'])
      assert.equal(await services.said(name, 600), `right ${MUCH}`, name);
  });

  test('are reset where the other end does not come back, and the report says so', async () => {
    const [lost] = services.reported(report, 'lost');
    assert.equal(lost?.outcome, 'failed', JSON.stringify(lost));
    assert.equal(await services.said('waits/waits'), 'ConnectionResetError');
    const [waits] = services.reported(report, 'waits');
    assert.equal(waits?.outcome, 'restored', JSON.stringify(waits));
    assert.equal(waits.fate, 'with-losses');
    const why = `its other end, that of PID ${services.pids.get('lost')} \\(python3\\), did not come back`;
    assert.match(
      waits.losses?.map(({ what }) => what).join('; ') ?? '',
      new RegExp(`^the connection to 127\\.0\\.0\\.1:${LOST} is reset: ${why}$`),
    );
    assert.equal(await services.mainPid('waits'), services.pids.get('waits'));
  });

  test('leave nothing behind', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('ls -d /sys/fs/cgroup/otherworld-[ru]* 2>/dev/null || true'), '');
  });
});
