// Boots one armed guest per release with memory above 4 GiB and 256 MiB reserved; kills its kernel on the CPU
// that the firmware did not boot, and looks at what systemd, the rules and the incident have made of the
// processes that came back, and at the CPU that stays off.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';

const MIB = 2 ** 20;

/**
 * Services of different kinds; what they run sleeps, so that nothing of them is in the middle of a change.
 */
const UNITS = {
  'simple-log': 'ExecStart=/bin/sh -c "echo ready; while :; do sleep 3600; done"',
  forking:
    'Type=forking\nPIDFile=/run/forking.pid\nExecStart=/bin/sh -c "sleep 3600 & echo $$! >/run/forking.pid"',
  'by-hand': 'ExecStart=/bin/sleep 3600',
  // systemd refuses to start it while there is anything in its cgroup, and ends that.
  stubborn: 'SendSIGKILL=no\nExecStart=/bin/sleep 3600',
  // The processor that the crash world does not have.
  pinned: 'CPUAffinity=1\nExecStart=/bin/sleep 3600',
  bystander: 'ExecStart=/bin/sleep 3600',
  sandboxed: 'PrivateTmp=yes\nExecStart=/bin/sh -c "echo kept >/tmp/own; while :; do sleep 3600; done"',
} as const;

/** CRIU 3.17 of Debian 12 has restored nobody into a sandbox. */
const hasSandboxes = release !== 'bookworm';

function unitFile(name: string, service: string): string {
  return `[Unit]\nDescription=${name}\n[Service]\n${service}\n[Install]\nWantedBy=multi-user.target\n`;
}

/**
 * A process with more memory than the crash world has, in as many runs of pages as there can be. @returns its
 * pid
 */
async function startLarge(guest: TestGuest): Promise<number> {
  await guest.program('scattered');
  const pid = await guest.background('exec scattered 768 /var/large');
  await guest.until('grep -q ready /var/large', 120);
  return pid;
}

/** A register of CPU 0. */
async function registerOfCpu0(guest: TestGuest, name: string): Promise<bigint> {
  const value = new RegExp(`\\b${name}=([0-9a-f]+)`).exec(await guest.monitor('info registers'))?.[1];
  return BigInt(`0x${value}`);
}

suite(`adoption with ${release}`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  const before_ = { simple: 0, forking: 0, byHand: 0, bystander: 0, loose: 0, large: 0 };
  const delicate = { stubborn: 0, pinned: 0 };
  let limited = 0;
  let sandboxed = 0;

  const mainPid = async (unit: string): Promise<number> =>
    Number(await guest.sh(`systemctl show --value --property=MainPID ${unit}`));

  before(async () => {
    guest = await bootTestGuest('adoption', {
      crashKernelMiB: 256,
      memoryMiB: 5120,
      // For the system management interrupt below, and so that nobody else makes one.
      configuration:
        '[crash-kernel]\nadd-parameters = ["iomem=relaxed", "nox2apic"]\nboot-processor = "off"\n',
    });
    for (const [name, service] of Object.entries(UNITS)) {
      await guest.sh(`cat >/etc/systemd/system/${name}.service <<'EOF'\n${unitFile(name, service)}EOF`);
    }
    // As `systemctl edit` writes it.
    await guest.sh(`mkdir /etc/systemd/system/stubborn.service.d
      printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep 3599\\n' >/etc/systemd/system/stubborn.service.d/override.conf`);
    await guest.sh('systemctl daemon-reload; systemctl -q enable --now simple-log forking bystander');
    await guest.sh('systemctl -q enable --now stubborn pinned');
    await guest.sh('systemctl start by-hand; mkdir -p /tmp/directory');
    if (hasSandboxes) {
      await guest.sh('systemctl -q enable --now sandboxed');
      sandboxed = await mainPid('sandboxed');
      await guest.until(`grep -q kept /proc/${sandboxed}/root/tmp/own`, 60);
    }
    before_.simple = await mainPid('simple-log');
    before_.forking = await mainPid('forking');
    delicate.stubborn = await mainPid('stubborn');
    delicate.pinned = await mainPid('pinned');
    await guest.sh(
      'systemd-run --quiet --unit=limited -p MemoryMax=200M -p TasksMax=50 -p CPUQuota=40% sleep 3602',
    );
    limited = await mainPid('limited');
    before_.byHand = await mainPid('by-hand');
    before_.bystander = await mainPid('bystander');
    before_.loose = await guest.background('cd /tmp/directory; exec sleep 3601');
    before_.large = await startLarge(guest);
    const units = ['simple-log', 'forking', 'by-hand', 'stubborn', 'pinned', 'limited'];
    const inSandbox = hasSandboxes ? ['sandboxed'] : [];
    const rules = [...[...units, ...inSandbox].map((unit) => `--unit ${unit}`), '--command nobody'].join(' ');
    await guest.sh(`otherworld protect ${rules} --pid ${before_.loose} ${before_.large}`, 300);
    await guest.program('smi');
    // CPU 0 dies on the stack of a task that computes, which is not the stack that it would be halted on
    // otherwise.
    await guest.background('exec taskset -c 0 sh -c "while :; do :; done"');
    report = await guest.panic('sysrq', 1);
  });
  after(() => guest?.down());

  test('the report tells what died, when and in whom, and keeps its log', async () => {
    assert.equal(report.state, 'settled');
    assert.match(report.panic?.message ?? '', /^Kernel panic - not syncing: sysrq triggered crash/);
    assert.equal(report.panic?.process?.comm, 'sh');
    assert.deepEqual(report.errors, []);
    assert.deepEqual(report.unmatchedRules, ['--command nobody']);
    const log = await guest.sh(`cat /var/lib/otherworld/incidents/${report.id}/dmesg.txt`);
    assert.match(log, /Linux version/);
    assert.match(log, /Kernel panic - not syncing: sysrq triggered crash/);
  });

  test('every protected process runs again, under its number', async () => {
    const outcomes = report.processes.map(({ pid, outcome, reasons }) => ({ pid, outcome, reasons }));
    assert.ok(
      outcomes.every(({ outcome }) => outcome === 'restored'),
      JSON.stringify(outcomes),
    );
    for (const pid of [before_.simple, before_.forking, before_.byHand, before_.loose, before_.large]) {
      assert.ok(outcomes.some((process) => process.pid === pid));
      await guest.sh(`kill -0 ${pid}`);
    }
  });

  test('a process of three times the reserved memory, page by page elsewhere, has every word of it', async () => {
    await guest.sh(`kill -USR1 ${before_.large}`);
    await guest.until('[ "$(wc -l </var/large)" = 2 ]', 60);
    assert.equal(await guest.sh('cat /var/large'), 'ready\nwhole');
  });

  test('services have taken up their processes: enabled, forking, and started by hand', async () => {
    assert.equal(await mainPid('simple-log'), before_.simple);
    assert.equal(await mainPid('forking'), before_.forking);
    assert.equal(await mainPid('by-hand'), before_.byHand);
    assert.equal(await guest.sh(`cat /proc/${before_.simple}/cgroup`), '0::/system.slice/simple-log.service');
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
  });

  test('a service in a sandbox goes on in one, with its file there', { skip: !hasSandboxes }, async () => {
    const process = report.processes.find(({ pid }) => pid === sandboxed);
    assert.deepEqual(
      [process?.outcome, process?.reasons, process?.adopted],
      ['restored', [], 'sandboxed.service'],
    );
    assert.equal(await mainPid('sandboxed'), sandboxed);
    assert.equal(await guest.sh(`cat /proc/${sandboxed}/cgroup`), '0::/system.slice/sandboxed.service');
    assert.notEqual(
      await guest.sh(`readlink /proc/${sandboxed}/ns/mnt`),
      await guest.sh('readlink /proc/1/ns/mnt'),
    );
    assert.equal(await guest.sh(`cat /proc/${sandboxed}/root/tmp/own`), 'kept');
    assert.equal(await guest.sh('ls /tmp/own 2>/dev/null || echo none'), 'none');
  });

  test('adoption ends nothing that it adopts, and the report says what runs', async () => {
    for (const [unit, pid] of Object.entries(delicate)) {
      assert.equal(await mainPid(unit), pid);
      assert.equal(await guest.sh(`cat /proc/${pid}/cgroup`), `0::/system.slice/${unit}.service`);
      const process = report.processes.find((other) => other.pid === pid);
      assert.deepEqual([process?.adopted, process?.ended], [`${unit}.service`, undefined]);
    }
    assert.equal(await guest.sh('systemctl show --value --property=DropInPaths pinned'), '');
  });

  test('the limits of a transient unit hold on', async () => {
    const scope = report.processes.find(({ pid }) => pid === limited)?.adopted ?? '';
    const names = ['MemoryMax', 'TasksMax', 'CPUQuotaPerSecUSec'];
    const shown = await guest.sh(`systemctl show -p ${names.join(' -p ')} ${scope}`);
    assert.deepEqual(shown.split('\n').toSorted(), [
      'CPUQuotaPerSecUSec=400ms',
      'MemoryMax=209715200',
      'TasksMax=50',
    ]);
  });

  test('a service has its own processes in its cgroup and no others, and writes to the journal itself', async () => {
    const procs = await guest.sh('cat /sys/fs/cgroup/system.slice/simple-log.service/cgroup.procs');
    const own = await guest.sh(`echo ${before_.simple}; pgrep -P ${before_.simple}`);
    assert.deepEqual(procs.split('\n').toSorted(), own.split('\n').toSorted());
    assert.equal(await guest.sh('pgrep -c -f [o]therworld-log || true'), '0');
  });

  test('units are afterwards what they were: they restart and stop as ever', async () => {
    assert.equal(await guest.sh('systemctl show --value --property=Type forking'), 'forking');
    assert.equal(await guest.sh('systemctl show --value --property=DropInPaths forking'), '');
    await guest.sh('systemctl restart forking; systemctl stop simple-log');
    assert.notEqual(await mainPid('forking'), before_.forking);
    assert.equal((await guest.exec(['kill', '-0', String(before_.simple)])).status, 1);
  });

  test('a service that was not protected was started afresh', async () => {
    const fresh = await mainPid('bystander');
    assert.notEqual(fresh, before_.bystander);
    const numbers = report.processes.map(({ pid }) => pid);
    assert.ok(fresh > 1 && !numbers.includes(fresh), `pid ${fresh}`);
  });

  test('what belongs to no service is in a scope of its own, and its rule holds on', async () => {
    const path = await guest.sh(`cat /proc/${before_.loose}/cgroup`);
    assert.equal(path, `0::/otherworld.slice/otherworld-${before_.loose}.scope`);
    assert.equal(await guest.sh(`readlink /proc/${before_.loose}/cwd`), '/tmp/directory');
    const status = JSON.parse((await guest.exec(['otherworld', 'status', '--json'])).stdout);
    assert.equal(status.state, 'crash world');
    const rule = status.rules.find(({ rule: name }: { rule: string }) => name === `--pid ${before_.loose}`);
    assert.equal(rule.processes.length, 1);
  });

  test('old memory is back, and the crash world needed less than was reserved', async () => {
    const { reservedBytes, peakUsedBytes, reclaimedBytes } = report.memory;
    assert.equal(reservedBytes, 256 * MIB);
    assert.ok(peakUsedBytes > 0 && peakUsedBytes < reservedBytes, `${peakUsedBytes / MIB} MiB used`);
    const left = report.notes.flatMap(
      (note) => /^(\d+) MiB of old memory are not taken back/.exec(note)?.[1] ?? [],
    );
    const withheldBytes = Number(left[0] ?? 0) * MIB;
    assert.ok(withheldBytes <= 1024 * MIB, `${withheldBytes / MIB} MiB are withheld`);
    assert.ok(reclaimedBytes + withheldBytes >= 4096 * MIB, `${reclaimedBytes / MIB} MiB are back`);
    const total = Number(await guest.sh("awk '/MemTotal/ { print $2 }' /proc/meminfo")) * 1024;
    assert.ok(total > reclaimedBytes + 128 * MIB, `${total / MIB} MiB`);
  });

  test('images and the runtime are gone from disk and memory', async () => {
    assert.equal(await guest.sh('find /var/lib/otherworld/images -name "*.img"'), '');
    await guest.until('! mountpoint -q /run/otherworld/runtime && [ -z "$(losetup -a)" ]', 20);
  });

  test('report prints it for people', async () => {
    const text = await guest.sh('otherworld report');
    assert.match(text, new RegExp(`^Incident ${report.id}$`, 'm'));
    assert.match(text, /^(\d+) of \1 protected processes run again$/m);
    assert.match(text, /sleep +restored +whole, in by-hand\.service/);
    assert.equal((await guest.exec(['otherworld', 'report', '2000-01-01T00-00-00Z'])).status, 1);
  });

  test('the processor that stays off is halted in memory that is left alone, and goes on there after an interrupt', async () => {
    assert.ok(report.notes.some((note) => note.startsWith('1 of 2 CPUs are used')));
    const blockBytes = Number.parseInt(await guest.sh('cat /sys/devices/system/memory/block_size_bytes'), 16);
    const [rip, rsp, tables] = [
      await registerOfCpu0(guest, 'RIP'),
      await registerOfCpu0(guest, 'RSP'),
      await registerOfCpu0(guest, 'CR3'),
    ];
    const physical = async (address: bigint): Promise<number> =>
      Number(/gpa: (0x[0-9a-f]+)/.exec(await guest.monitor(`gva2gpa 0x${address.toString(16)}`))?.[1]);
    for (const address of [await physical(rip), await physical(rsp), Number(tables & ~0xfffn)]) {
      assert.ok(address > 0, 'what CPU 0 is halted in is not mapped any more');
      const state = `/sys/devices/system/memory/memory${Math.floor(address / blockBytes)}/state`;
      const online = await guest.sh(`cat ${state} 2>/dev/null || echo not there`);
      assert.notEqual(online, 'online', `0x${address.toString(16)}`);
    }
    const bootId = await guest.sh('cat /proc/sys/kernel/random/boot_id');
    const halted = async (): Promise<boolean> => /\bHLT=1\b/.test(await guest.monitor('info registers'));
    assert.ok(await halted());
    await guest.sh('smi 0');
    // It goes on behind the instruction that halted it, into an endless loop. Its address tells nothing: what
    // QEMU shows of a CPU in such a loop may be where it was before.
    for (let i = 0; i < 60 && (await halted()); i++) await guest.sh('sleep 1');
    assert.ok(!(await halted()), 'the interrupt did not wake it');
    assert.equal(await guest.sh('cat /proc/sys/kernel/random/boot_id'), bootId);
  });
});
