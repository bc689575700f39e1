// Boots one armed guest per release: arming, protection and configuration as an administrator meets them;
// then kills its kernel in a crash world that can do nothing, which reboots.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';

const MIB = 2 ** 20;

suite(`arming with ${release}`, () => {
  let guest: TestGuest;

  before(async () => {
    guest = await bootTestGuest('arming');
  });
  after(() => guest?.down());

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
    assert.equal(status.reservedBytes, 320 * MIB);
    assert.ok(status.neededBytes <= status.reservedBytes, `${status.neededBytes / MIB} MiB needed`);
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
    assert.equal(await kernel('panic_on_oops'), '1');
    // The kernel itself notes what the setting is whenever somebody loads a kernel.
    const tracing = '/sys/kernel/tracing';
    const probe = "echo 'p:loading __x64_sys_kexec_load oops=@panic_on_oops:s32'";
    await guest.sh(`${probe} >${tracing}/kprobe_events; echo 1 >${tracing}/events/kprobes/loading/enable`);
    await guest.sh('otherworld arm');
    assert.match(await guest.sh(`grep -o 'oops=.*' ${tracing}/trace`), /^oops=0(\noops=0)*$/);
    await guest.sh(`echo 0 >${tracing}/events/kprobes/loading/enable; echo >${tracing}/kprobe_events`);
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
    const problem = '/etc/otherworld/otherworld.toml:2:11: panic.on-oops: true or false is wanted, not 3';
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
    let report: IncidentReport;

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

    test('reboots into the ordinary system, which can be armed', async () => {
      assert.doesNotMatch(await guest.sh('cat /proc/cmdline'), /otherworld\.crash-world/);
      assert.equal((await guest.exec(['otherworld', 'status'])).status, 1);
      await guest.sh('rm /etc/otherworld/otherworld.toml; otherworld arm; otherworld status');
    });
  });
});
