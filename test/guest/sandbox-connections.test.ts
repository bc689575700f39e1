// Boots one armed guest that panics under services in systemd's sandbox with TCP connections: to peers
// outside of it, which go on sending, and within a service. The services come back when the network is up and
// has had segments for them.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../lab/ports.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';
import { counted, OutsideCounter } from './outside-counter.ts';
import { OutsidePeer } from './outside-peer.ts';
import { SANDBOX, Services, unitFile } from './sandbox-services.ts';

const PORT = 7001;
const WITHIN = 7002;
const LOST = 7003;
const PYTHON = '/usr/bin/python3 /usr/local/bin';
const WIRE = '/run/wire';
/** Less than a buffer. */
const LITTLE = 60_000;
/** More than the buffers of both ends take. */
const MUCH = 12_000_000;

const PAIR = [
  `${PYTHON}/connections.py serve 127.0.0.1 ${WITHIN} /var/lib/pair &`,
  `until [ -e /var/lib/pair/serve-${WITHIN} ]; do sleep 0.1; done;`,
  `exec ${PYTHON}/connections.py call 127.0.0.1 ${WITHIN} /var/lib/pair within "told 60 ${LITTLE}"`,
].join(' ');

const UNITS = {
  served: `${PYTHON}/connections.py serve 0.0.0.0 ${PORT} /var/lib/served`,
  pair: `/bin/sh -c '${PAIR}'`,
  // Its unit is changed before the panic: it starts afresh.
  lost: `${PYTHON}/connections.py serve 0.0.0.0 ${LOST} /var/lib/lost`,
} as const;
type Unit = keyof typeof UNITS;
const NAMES = Object.keys(UNITS) as Unit[];
const KEPT = ['served', 'pair'] as const;

/** Looks at the network from before it is up. */
const WATCH = `[Unit]
DefaultDependencies=no
Before=network-pre.target
Wants=network-pre.target
[Service]
ExecStart=${PYTHON}/wire.py watch ${WIRE} ${PORT} ${LOST}
[Install]
WantedBy=sysinit.target
`;
/** The services start, and come back, after their peers were heard. */
const HEARD = `[Unit]
After=wire.service
Before=${NAMES.map((name) => `${name}.service`).join(' ')}
[Service]
Type=oneshot
TimeoutStartSec=4min
ExecStart=${PYTHON}/wire.py wait ${WIRE} ${PORT} ${LOST}
[Install]
WantedBy=multi-user.target
`;

suite(`TCP connections of sandboxed services when ${release} panics`, {
  skip: release === 'bookworm',
}, () => {
  let guest: TestGuest;
  let services: Services<Unit>;
  let report: IncidentReport;
  let counter: OutsideCounter;
  let told: OutsidePeer;
  let lost: OutsidePeer;
  let wire = '';
  /** Whether the services waited until segments had come, and no time limit was over. */
  let heard = '';

  /** What peers send while nobody is there. */
  async function sendMeanwhile(): Promise<void> {
    await guest.consoleSays(/Kernel panic/, 120);
    counter.ask(4);
    void told.send(20, MUCH, 0);
    void lost.send(30, LITTLE, 0);
  }

  before(async () => {
    const port = await freePort();
    let lostPort = port;
    while (lostPort === port) lostPort = await freePort();
    const forwards = [
      { host: port, guest: PORT },
      { host: lostPort, guest: LOST },
    ];
    guest = await bootTestGuest('sandbox-tcp', { forwards });
    services = new Services(guest, NAMES);
    for (const program of ['connections.py', 'wire.py'])
      await guest.copyIn(`test/guest/programs/${program}`, `/usr/local/bin/${program}`);
    for (const name of NAMES) await services.write(name, unitFile(UNITS[name], SANDBOX));
    await services.write('wire', WATCH);
    await services.write('heard', HEARD);
    await guest.sh(
      `systemctl daemon-reload; systemctl -q enable wire heard; systemctl -q enable --now ${NAMES.join(' ')}`,
    );
    for (const [name, at] of Object.entries({ served: PORT, lost: LOST }))
      await services.said(`${name}/serve-${at}`);
    counter = await OutsideCounter.to(port, counted('count'));
    counter.ask(3);
    told = await OutsidePeer.to(port, 'told', 'told', 20, MUCH);
    lost = await OutsidePeer.to(lostPort, 'lost', 'told', 30, LITTLE);
    for (const name of ['served/told', 'lost/lost']) await services.said(`${name}.at`);
    // Both ends of the one within are quiet: it is half closed.
    await guest.until(`test "$(ss -tnH state fin-wait-2 dport = :${WITHIN} | wc -l)" = 1`, 120);
    await services.notePids();
    await services.check(KEPT);
    await services.protect();
    await services.write('lost', unitFile(UNITS.lost, 'PrivateTmp=yes'));
    await guest.sh('sync');
    const sending = sendMeanwhile();
    report = await guest.panic('sysrq');
    await sending;
    wire = await guest.sh(`cat ${WIRE}`);
    heard = await guest.sh('systemctl show --value --property=Result heard');
  });
  after(async () => {
    counter?.close();
    for (const peer of [told, lost]) peer?.close();
    await guest?.down();
  });

  for (const name of KEPT) {
    test(`come back with ${name}, in its sandbox`, () => services.assertBack(report, name));
  }

  test('lose nothing of what peers sent while nobody was there, and repeat nothing', async () => {
    counter.ask(4);
    const end = performance.now() + 120_000;
    while (counter.answered < 11 && performance.now() < end) await sleep(200);
    assert.deepEqual([counter.answered, counter.wrong], [11, undefined]);
    await guest.sh('touch /var/lib/served/go');
    assert.equal(await told.outcome, `right ${MUCH}`);
    assert.equal(await services.said('served/told'), `right ${MUCH}`);
  });

  test('are not answered before they are there', (t) => {
    t.diagnostic(wire);
    const [, segments = '', resets = ''] =
      new RegExp(`^${PORT} segments=(\\d+) resets=(\\d+)$`, 'm').exec(wire) ?? [];
    assert.ok(Number(segments) >= 2, wire);
    assert.equal(resets, '0');
    assert.equal(heard, 'success');
  });

  test('have segments as large as their network takes', async () => {
    const sizes = await guest.sh(`ss -tniH state established sport = :${PORT} | grep -o ' mss:[0-9]*'`);
    for (const size of sizes.split('\n')) assert.ok(Number(size.split(':')[1]) >= 1400, sizes);
  });

  test('within a service go on at both ends', async () => {
    await guest.sh('touch /var/lib/pair/go');
    for (const name of ['within', 'within-served'])
      assert.equal(await services.said(`pair/${name}`), `right ${LITTLE}`);
  });

  test('of a service that starts afresh are reset', async () => {
    const [outcome] = services.reported(report, 'lost');
    assert.equal(outcome?.outcome, 'failed', JSON.stringify(outcome));
    const what = await Promise.race([lost.outcome, sleep(120_000, 'nothing', { ref: false })]);
    assert.notEqual(what, 'nothing');
    assert.notEqual(what, `right ${LITTLE}`);
    assert.match(await guest.until(`grep '^${LOST} .*resets=[1-9]' ${WIRE}`, 60), /resets/);
  });

  test('leave the network as the boot has made it', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('ls -d /sys/fs/cgroup/otherworld-[ru]* 2>/dev/null || true'), '');
    assert.doesNotMatch(await guest.sh('ip -brief link'), /dummy|otherworld/);
    assert.match(await guest.sh('ip -4 route show default'), /^default via \S+ dev eth0 [^\n]*$/);
    assert.doesNotMatch(await guest.sh('ip rule; ip -6 rule'), /1869903664|4294967295/);
    assert.equal(await guest.sh('cat /proc/sys/net/ipv4/ip_nonlocal_bind /sys/class/net/lo/mtu'), '0\n65536');
  });
});
