// Boots one armed guest per release that is like a server: two NUMA nodes with balancing on, more than 4 GiB
// with holes between, two disks, several users, process numbers near four million. It hangs, and is killed by
// an NMI from outside; everybody comes back.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { diskMount, userNames } from '../../lab/furnish.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, release, type TestGuest } from './harness.ts';
import { wholeText } from './whole-text.ts';

const programs = join(import.meta.dirname, 'programs');
const disk = diskMount(2);
const LAST_PID = 4_100_000;

/** Who holds something, where, and on the CPUs (and so in the memory) of which node. */
const holders = {
  root: { user: 'root', directory: `${disk}/root`, node: 1 },
  alice: { user: userNames[0], directory: `${disk}/alice`, node: 1 },
  bob: { user: userNames[1], directory: '/home/bob/data', node: 0 },
} as const;
type Holder = keyof typeof holders;
const names = Object.keys(holders) as Holder[];

/** What the kernel says of who a process is. */
const IDENTITY = "grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs):' /proc/$pid/status";

suite(`a server with ${release}`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  const pids = new Map<Holder, number>();
  const identities = new Map<Holder, string>();
  const pidOf = (name: Holder): number => pids.get(name) ?? assert.fail(name);
  const identityOf = (name: Holder): Promise<string> => guest.sh(`pid=${pidOf(name)}; ${IDENTITY}`);

  async function start(name: Holder): Promise<void> {
    const { user, directory, node } = holders[name];
    await guest.sh(`mkdir -p ${directory}; chown ${user}:${user} ${directory}`);
    const command = `numactl --cpunodebind=${node} python3 /srv/holder.py ${directory} ${name}`;
    await guest.background(`exec runuser -u ${user} -- ${command} 2>${directory}/error`);
    pids.set(
      name,
      Number(await guest.until(`cat ${directory}/error >&2; ${wholeText(`${directory}/ready`)}`, 300)),
    );
    identities.set(name, await identityOf(name));
  }

  /** Waits for a program to look at all that it holds. @returns what it says */
  async function ask(name: Holder): Promise<string> {
    const found = `${holders[name].directory}/found`;
    const before = Number(await guest.sh(`cat ${found} 2>/dev/null | wc -l`));
    await guest.sh(`kill -USR1 ${pidOf(name)}`);
    return guest.until(`test "$(cat ${found} | wc -l)" -gt ${before} && tail -n1 ${found}`, 120);
  }

  before(async () => {
    guest = await bootTestGuest('server', {
      memoryMiB: 6144,
      cpus: 4,
      furniture: { numaNodes: 2, disks: 2, users: true, lastPid: LAST_PID },
    });
    await guest.copyIn(join(programs, 'holder.py'), '/srv/holder.py');
    // As eager as it can be (milliseconds): under emulation the usual pace takes minutes.
    const settings = ['scan_delay_ms', 'scan_period_min_ms', 'scan_period_max_ms'];
    await guest.sh(
      `cd /sys/kernel/debug/sched/numa_balancing; for f in ${settings.join(' ')}; do echo 100 >$f; done`,
    );
  });
  after(() => guest?.down());

  test('has nodes with memory of their own that it balances, memory above 4 GiB, and two disks', async () => {
    assert.equal(await guest.sh('cat /sys/devices/system/node/online'), '0-1');
    assert.equal(await guest.sh('cat /proc/sys/kernel/numa_balancing'), '1');
    assert.match(await guest.sh("grep 'System RAM' /proc/iomem"), /^1[0-9a-f]{8}-/m);
    assert.match(await guest.sh(`findmnt -no FSTYPE ${disk}`), /^ext4$/);
    assert.ok(Number(await guest.sh('sh -c "echo \\$\\$"')) > LAST_PID);
  });

  test('hangs, is killed by an NMI from outside, and everybody comes back under his number', async () => {
    for (const name of names) await start(name);
    await guest.sh(`otherworld protect ${names.map((name) => `--pid ${pidOf(name)}`).join(' ')}`);
    assert.ok(Number(await guest.sh("awk '/^numa_pte_updates / { print $2 }' /proc/vmstat")) > 0);
    report = await guest.panic('hang');
    assert.equal(report.state, 'settled');
    for (const name of names) {
      assertRestored(report, pidOf(name));
      assert.ok(pidOf(name) > LAST_PID);
    }
  });

  test('has what each of them had in memory, on tmpfs, deleted and never written to a disk', async () => {
    for (const name of names) assert.match(await ask(name), /^whole \d+$/, name);
  });

  test('has every line that was appended and never synchronised, on either disk', async () => {
    for (const name of names) {
      const lines = (await guest.sh(`cat ${holders[name].directory}/log`)).split('\n');
      assert.deepEqual(
        lines,
        lines.map((_, i) => `line ${i + 1}`),
        name,
      );
    }
  });

  test('gives each its user, groups and capabilities, and no more', async () => {
    for (const name of names) assert.equal(await identityOf(name), identities.get(name), name);
  });

  test('has the memory of both nodes back, and its CPUs but the one that the firmware booted', async (t) => {
    t.diagnostic(`${report.memory.peakUsedBytes / 2 ** 20} MiB were used at most`);
    assert.ok(report.memory.reclaimedBytes > 4 * 2 ** 30, `${report.memory.reclaimedBytes}`);
    assert.deepEqual(report.errors, []);
    assert.ok(Number(await guest.sh('nproc --all')) >= 3);
  });
});
