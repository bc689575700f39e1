// Boots one armed guest with services as Debian ships and starts them, sandbox and all, and with the
// configuration that there is without a file; kills its kernel, and compares what each of them had with what
// it has. Only where nothing is left out: it takes an image of its own.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { freePort } from '../../lab/ports.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, isWhole, release, type TestGuest } from './harness.ts';
import { memcached, OutsideCounter } from './outside-counter.ts';

/** Those that come back, and whether they can be told to read their configuration again. */
const KEPT = {
  memcached: { reload: false },
  apache2: { reload: true },
  nginx: { reload: true },
  mariadb: { reload: false },
} as const;
const KEPT_NAMES = Object.keys(KEPT) as (keyof typeof KEPT)[];
/** Those that are refused so far: what is said of them has to be what becomes of them. */
const OTHERS = ['redis-server'] as const;
type Unit = keyof typeof KEPT | (typeof OTHERS)[number];
const NAMES: readonly Unit[] = [...KEPT_NAMES, ...OTHERS];
/** Those that start and end threads as they have work, also by a look at them. */
const POOLED: readonly Unit[] = ['mariadb'];
const MEMCACHED_PORT = 11_211;
const PACKAGES = ['memcached', 'apache2', 'nginx', 'mariadb-server', 'redis-server'];

/** Of a service that counts: how often a look at it makes it count, but for questions that it asks again. */
const dataSchema = z.looseObject({ accesses: z.int().optional(), askedAgain: z.int().optional() });
type Data = z.infer<typeof dataSchema>;
const ACCESSES_OF_LOOK = 2;

/** What a service has to have now that had `was` before this look at it. */
function countedOn(was: Data, { askedAgain = 0 }: Data): Data {
  if (was.accesses === undefined) return was;
  return { ...was, accesses: was.accesses + ACCESSES_OF_LOOK + askedAgain, askedAgain };
}

/** What of /proc/PID/status tells what a process may do; of most, `Threads` is compared too. */
const RIGHTS = 'Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters';

interface Seen {
  readonly mainPid: string;
  readonly pids: string;
  readonly rights: string;
  readonly limits: string;
  readonly tasksMax: string;
  readonly descriptors: string;
  readonly data: Data;
}

suite(`Debian's own services with ${release}`, { skip: !isWhole || release !== 'trixie' }, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let client: OutsideCounter;
  const before_ = new Map<Unit, Seen>();
  const checked = new Map<Unit, string>();

  const show = (name: Unit, property: string): Promise<string> =>
    guest.sh(`systemctl show --value --property=${property} ${name}`);
  const look = async (name: Unit): Promise<Seen> => {
    const data = dataSchema.parse(JSON.parse(await guest.sh(`python3 /srv/debian-units.py look ${name}`)));
    const mainPid = await show(name, 'MainPID');
    const compared = POOLED.includes(name) ? RIGHTS : `${RIGHTS}|Threads`;
    return {
      mainPid,
      data,
      pids: await guest.sh(`sort -n /sys/fs/cgroup/system.slice/${name}.service/cgroup.procs`),
      rights: await guest.sh(`grep -E '^(${compared}):' /proc/${mainPid}/status`),
      limits: await guest.sh(`cat /proc/${mainPid}/limits`),
      tasksMax: await show(name, 'TasksMax'),
      // Pipes and sockets have another number.
      descriptors: await guest.sh(
        `cd /proc/${mainPid}/fd; for fd in *; do echo "$fd $(readlink $fd | sed 's/:.*//')"; done`,
      ),
    };
  };
  const outcomesOf = (name: Unit) => report.processes.filter(({ unit }) => unit === `${name}.service`);
  const isBack = (name: Unit): boolean => outcomesOf(name).every(({ outcome }) => outcome === 'restored');

  before(async () => {
    const port = await freePort();
    const forwards = [{ host: port, guest: MEMCACHED_PORT }];
    guest = await bootTestGuest('debian-units', { packages: PACKAGES, forwards });
    await guest.copyIn('test/guest/programs/debian-units.py', '/srv/debian-units.py');
    // It cannot have the port of the other one.
    await guest.sh(
      "sed -i 's/\\b80 default_server/8080 default_server/' /etc/nginx/sites-available/default; " +
        'systemctl restart nginx',
    );
    // As shipped it serves its own machine alone.
    await guest.sh("sed -i 's/^-l 127.0.0.1/-l 0.0.0.0/' /etc/memcached.conf; systemctl restart memcached");
    for (const name of NAMES) {
      await guest.until(`systemctl is-active ${name}`, 120);
      await guest.sh(`python3 /srv/debian-units.py fill ${name}`);
      const { status, stdout } = await guest.exec(['otherworld', 'check', name]);
      checked.set(name, `${status} ${stdout.replaceAll(/\s+/g, ' ')}`);
    }
    client = await OutsideCounter.to(port, memcached);
    client.ask(3);
    await guest.sh(`otherworld protect ${NAMES.map((name) => `--unit ${name}`).join(' ')}`, 300);
    for (const name of NAMES) before_.set(name, await look(name));
    const asking = guest.consoleSays(/Kernel panic/, 120).then(() => client.ask(4));
    report = await guest.panic('sysrq');
    await asking;
  });
  after(async () => {
    client?.close();
    await guest?.down();
  });

  for (const name of NAMES) {
    test(`what is said of ${name} before the panic is what becomes of it`, () => {
      const outcomes = outcomesOf(name);
      assert.ok(outcomes.length > 0);
      const words = checked.get(name) ?? '';
      // 4: of some it depends on the moment.
      assert.match(words, isBack(name) ? /^[04] / : /^[34] /);
      for (const { outcome, reasons } of outcomes.filter((one) => one.outcome !== 'restored')) {
        assert.equal(outcome, 'refused', reasons.join('; '));
        assert.notEqual(reasons.length, 0);
      }
    });
  }

  for (const name of KEPT_NAMES) {
    test(`${name} comes back whole`, () => {
      for (const { outcome, fate, reasons, adopted } of outcomesOf(name))
        assert.deepEqual(
          { outcome, fate, reasons, adopted },
          { outcome: 'restored', fate: 'whole', reasons: [], adopted: `${name}.service` },
        );
    });
  }

  for (const name of NAMES) {
    test(`${name} has its data under its numbers, or is started as after a boot`, async () => {
      const was = before_.get(name) ?? assert.fail();
      if (!isBack(name)) {
        await guest.until(`systemctl is-active ${name}`, 120);
        assert.notEqual(await show(name, 'MainPID'), was.mainPid);
        return;
      }
      const now = await look(name);
      assert.deepEqual(now, { ...was, data: countedOn(was.data, now.data) });
    });
  }

  test('a client of memcached, on another machine, has each request answered once', async () => {
    client.ask(4);
    const end = performance.now() + 120_000;
    while (client.answered < 11 && client.wrong === undefined && performance.now() < end) await sleep(200);
    assert.deepEqual([client.answered, client.wrong], [11, undefined]);
  });

  for (const name of KEPT_NAMES) {
    test(`${name} is systemd's own again`, async () => {
      assert.equal(await show(name, 'DropInPaths'), '');
      assert.equal(await show(name, 'ControlPID'), '0');
      assert.equal(await show(name, 'NRestarts'), '0');
      assert.equal(await show(name, 'ActiveState'), 'active');
      const mainPid = before_.get(name)?.mainPid;
      if (KEPT[name].reload) {
        await guest.sh(`systemctl reload ${name}`);
        assert.equal(await show(name, 'MainPID'), mainPid);
        await look(name);
      }
      await guest.sh(`systemctl restart ${name}`);
      assert.notEqual(await show(name, 'MainPID'), mainPid);
      await guest.until(`python3 /srv/debian-units.py look ${name}`, 60);
      await guest.sh(`systemctl stop ${name}`);
      assert.equal(await show(name, 'ActiveState'), 'inactive');
    });
  }

  test('nothing of it is left over', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
    assert.equal(await guest.sh('ls /sys/fs/cgroup | grep otherworld-restore || true'), '');
    assert.equal(await guest.sh('cat /proc/sys/net/ipv4/ip_nonlocal_bind'), '0');
  });
});
