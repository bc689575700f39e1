// Boots one armed guest per release with memory above 4 GiB and 256 MiB reserved: arming, protection and configuration as an administrator meets them; then
// kills its kernel twice: in a crash world that can do nothing, which reboots, and then on the CPU that the firmware did not boot, and looks at what systemd, the rules and the incident have made of the processes that came back,
// and at the CPU that stays off.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { Report } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';

const MIB = 2 ** 20;

/** Services of different kinds; what they run sleeps, so that nothing of them is in the middle of a change. */
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
} as const;

function unitFile(name: string, service: string): string {
  return `[Unit]\nDescription=${name}\n[Service]\n${service}\n[Install]\nWantedBy=multi-user.target\n`;
}

/** A process with more memory than the crash world has, in as many runs of pages as there can be. @returns its pid */
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

suite(`arming and adoption with ${release}`, () => {
  let guest: TestGuest;

  before(async () => {
    guest = await bootTestGuest('arming', { crashKernelMiB: 256, memoryMiB: 5120 });
  });
  after(() => guest?.down());

  const mainPid = async (unit: string): Promise<number> =>
    Number(await guest.sh(`systemctl show --value --property=MainPID ${unit}`));
  const kernel = (name: string): Promise<string> => guest.sh(`cat /proc/sys/kernel/${name}`);

  test('the doctor finds nothing missing', async () => {
    const findings: { state: string }[] = JSON.parse(await guest.sh('otherworld doctor --json'));
    assert.deepEqual(
      findings.filter(({ state }) => state === 'missing'),
      [],
    );
  });

  test('status tells that the system is armed, with memory enough', async () => {
    const status = JSON.parse(await guest.sh('otherworld status --json'));
    assert.equal(status.state, 'armed');
    assert.equal(status.reservedBytes, 256 * MIB);
    assert.ok(status.neededBytes <= 256 * MIB, `${status.neededBytes / MIB} MiB needed`);
  });

  test("another program's crash kernel is not taken for ours", async () => {
    await guest.sh(
      'kexec -p -s --reuse-cmdline --initrd=/boot/initrd.img-"$(uname -r)" /boot/vmlinuz-"$(uname -r)"',
    );
    const { status, stdout } = await guest.exec(['otherworld', 'status', '--json']);
    assert.equal(status, 1);
    assert.equal(JSON.parse(stdout).state, 'armed by another program');
  });

  test('while a crash kernel is loaded, nothing panics that would limp on otherwise', async () => {
    // Found before the system's own; the panic sysctls are those of the armed system until then.
    const watching = `#!/bin/sh\ncat /proc/sys/kernel/panic_on_oops >>/run/seen\nexec /usr/sbin/kexec "$@"\n`;
    assert.equal(await kernel('panic_on_oops'), '1');
    await guest.sh(`printf '${watching}' >/usr/local/sbin/kexec; chmod +x /usr/local/sbin/kexec`);
    await guest.sh('otherworld arm');
    await guest.sh('rm /usr/local/sbin/kexec');
    assert.match(await guest.sh('cat /run/seen'), /^0(\n0)*$/);
    assert.equal(await kernel('panic_on_oops'), '1');
    assert.equal(JSON.parse(await guest.sh('otherworld status --json')).state, 'armed');
  });

  test('what does not work is found out before it is loaded, and what is loaded stays', async () => {
    const file = await guest.sh('ls /var/cache/otherworld/runtime-*');
    await guest.sh(`cp ${file} /root/runtime; dd if=/dev/zero of=${file} bs=64 count=1 conv=notrunc`);
    const { status, stderr } = await guest.exec(['otherworld', 'arm']);
    await guest.sh(`cat /root/runtime >${file}; rm /root/runtime`);
    assert.equal(status, 1);
    assert.match(stderr, /the crash initramfs was tried before it is loaded, and does not work:/);
    assert.equal(JSON.parse(await guest.sh('otherworld status --json')).state, 'armed');
    assert.equal(await guest.sh('grep -c /trial /proc/mounts || true'), '0');
  });

  test('a kernel that cannot be armed is found out before anything is built', async () => {
    const before_ = await kernel('kptr_restrict');
    await guest.sh('sysctl -qw kernel.kptr_restrict=2');
    const doctor = await guest.exec(['otherworld', 'doctor']);
    const arm = await guest.exec(['otherworld', 'arm']);
    await guest.sh(`sysctl -qw kernel.kptr_restrict=${before_}`);
    assert.match(doctor.stdout, /missing +the kernel's symbols/);
    assert.deepEqual([doctor.status, arm.status], [1, 1]);
    assert.match(arm.stderr, /^otherworld: the kernel's symbols: .*kernel\.kptr_restrict is 2/);
  });

  test('a wrong configuration is named with its line, and nothing is changed', async () => {
    await guest.sh(
      'mkdir -p /etc/otherworld; printf "[panic]\\non-oops = 3\\n" >/etc/otherworld/otherworld.toml',
    );
    const { status, stderr } = await guest.exec(['otherworld', 'arm']);
    assert.equal(status, 1);
    const problem = '/etc/otherworld/otherworld.toml:2: panic.on-oops: true or false is wanted, not 3';
    assert.equal(stderr, `otherworld: ${problem}\n`);
    const doctor = await guest.exec(['otherworld', 'doctor']);
    assert.equal(doctor.status, 1);
    assert.ok(doctor.stdout.includes(problem), doctor.stdout);
    assert.match(doctor.stdout, /good +memory for the crash kernel/);
    await guest.sh('rm /etc/otherworld/otherworld.toml');
    assert.equal(await guest.sh('cat /sys/kernel/kexec_crash_loaded'), '1');
  });

  test('what is protected is shown, and can be taken back', async () => {
    await guest.sh('otherworld protect --command nobody --unit nobody');
    assert.match(await guest.sh('otherworld status'), /--unit nobody\.service +no such process now/);
    await guest.sh('otherworld unprotect --command nobody --unit nobody');
    assert.equal((await guest.exec(['otherworld', 'unprotect', '--command', 'nobody'])).status, 1);
    assert.equal((await guest.exec(['otherworld', 'protect', '--pid', '4000000'])).status, 1);
    assert.equal((await guest.exec(['otherworld', 'protect'])).status, 2);
  });

  test('it can be armed at every boot, and prepared when a kernel is installed', async () => {
    await guest.sh('otherworld arm --install');
    assert.equal(await guest.sh('systemctl is-enabled otherworld-arm'), 'enabled');
    await guest.sh('/etc/kernel/postinst.d/zz-otherworld "$(uname -r)" /boot/vmlinuz-"$(uname -r)"');
  });

  test('disarm unloads the crash kernel and puts the panic settings back; the boot arms again', async () => {
    assert.equal(await kernel('panic_on_oops'), '1');
    await guest.sh('otherworld disarm');
    assert.equal(await kernel('panic_on_oops'), '0');
    assert.equal(await guest.sh('cat /sys/kernel/kexec_crash_loaded'), '0');
    assert.equal((await guest.exec(['otherworld', 'status'])).status, 1);
    await guest.sh('systemctl restart otherworld-arm');
    assert.equal(await guest.sh('cat /sys/kernel/kexec_crash_loaded'), '1');
    assert.equal(await kernel('panic_on_oops'), '1');
    await guest.sh('otherworld disarm --uninstall');
    assert.equal(await guest.sh('systemctl show --value --property=LoadState otherworld-arm'), 'not-found');
  });

  suite('a crash world that cannot mount its runtime', () => {
    let report: Report;

    before(async () => {
      await guest.sh(
        `mkdir -p /etc/otherworld; printf '[crash-kernel]\nadd-parameters = ["module_blacklist=squashfs"]\n' >/etc/otherworld/otherworld.toml`,
      );
      await guest.sh('otherworld arm; sysctl -qw kernel.kexec_load_disabled=1');
      const arm = await guest.exec(['otherworld', 'arm']);
      assert.match(arm.stderr, /^otherworld: loading a crash kernel: kernel\.kexec_load_disabled is 1/);
      report = await guest.panic('sysrq');
    });

    test("leaves an incident that says why, with the dead kernel's log", async () => {
      assert.equal(report.state, 'abandoned');
      assert.deepEqual(report.errors, ['the runtime is not mounted']);
      assert.match(report.panic?.message ?? '', /sysrq triggered crash/);
      const log = await guest.sh(`cat /var/lib/otherworld/incidents/${report.id}/dmesg.txt`);
      assert.match(log, /Kernel panic - not syncing: sysrq triggered crash/);
      assert.match(await guest.sh('otherworld report'), /the machine rebooted into its ordinary system/);
    });

    test('reboots into the ordinary system, which is not armed', async () => {
      assert.doesNotMatch(await guest.sh('cat /proc/cmdline'), /otherworld\.crash-world/);
      assert.equal((await guest.exec(['otherworld', 'status'])).status, 1);
      await guest.sh('rm /etc/otherworld/otherworld.toml');
    });
  });

  suite('after a panic', () => {
    let report: Report;
    const before_ = { simple: 0, forking: 0, byHand: 0, bystander: 0, loose: 0, large: 0 };
    const delicate = { stubborn: 0, pinned: 0 };
    let limited = 0;

    before(async () => {
      for (const [name, service] of Object.entries(UNITS)) {
        await guest.sh(`cat >/etc/systemd/system/${name}.service <<'EOF'\n${unitFile(name, service)}EOF`);
      }
      // As `systemctl edit` writes it.
      await guest.sh(`mkdir /etc/systemd/system/stubborn.service.d
        printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep 3599\\n' >/etc/systemd/system/stubborn.service.d/override.conf`);
      await guest.sh('systemctl daemon-reload; systemctl -q enable --now simple-log forking bystander');
      await guest.sh('systemctl -q enable --now stubborn pinned');
      await guest.sh('systemctl start by-hand; mkdir -p /tmp/directory');
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
      await guest.sh(
        `otherworld protect --unit simple-log --unit forking --unit by-hand --pid ${before_.loose} --command nobody`,
      );
      await guest.sh(`otherworld protect --pid ${before_.large}`);
      await guest.sh('otherworld protect --unit stubborn --unit pinned --unit limited');
      // For the system management interrupt below.
      await guest.program('smi');
      await guest.sh(
        `printf '[crash-kernel]\nadd-parameters = ["iomem=relaxed", "nox2apic"]\n' >/etc/otherworld/otherworld.toml; otherworld arm`,
      );
      // CPU 0 dies on the stack of a task that computes, which is not the stack that it would be halted on otherwise.
      await guest.background('exec taskset -c 0 sh -c "while :; do :; done"');
      report = await guest.panic('sysrq', 1);
    });

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
      assert.equal(
        await guest.sh(`cat /proc/${before_.simple}/cgroup`),
        '0::/system.slice/simple-log.service',
      );
      assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
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
      assert.match(text, /sleep +restored +in by-hand\.service/);
      assert.equal((await guest.exec(['otherworld', 'report', '2000-01-01T00-00-00Z'])).status, 1);
    });

    test('the processor that stays off is halted in memory that is left alone, and may be woken there', async () => {
      assert.ok(report.notes.some((note) => note.startsWith('1 of 2 CPUs are used')));
      const blockBytes = Number.parseInt(
        await guest.sh('cat /sys/devices/system/memory/block_size_bytes'),
        16,
      );
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
      await guest.sh('smi 0');
      // It goes on behind the instruction that halted it.
      for (let i = 0; i < 60 && (await registerOfCpu0(guest, 'RIP')) === rip; i++) await guest.sh('sleep 1');
      assert.notEqual(await registerOfCpu0(guest, 'RIP'), rip);
      assert.equal(await guest.sh('cat /proc/sys/kernel/random/boot_id'), bootId);
    });
  });
});
