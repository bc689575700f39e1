// Boots one armed guest per release and kills its kernel: what `lab panic` promises, whatever is protected.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { bootedCrashWorld } from '../../lab/console-log.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';

/** A disk that the system does without. */
const disk = {
  arguments: [
    ...['-blockdev', 'driver=null-co,node-name=second,size=1048576'],
    ...['-device', 'nvme,drive=second,serial=second'],
  ],
  /** PCI class of an NVMe controller. */
  class: '0x010802',
};

/** PCI_COMMAND_MASTER. */
const MASTER = 4;
/** An NVMe controller's VS, CC and its bit EN (NVM Express Base Specification, 3.1.3). */
const VERSION = 0x08;
const CONFIGURATION = 0x14;
const ENABLED = 1;

/** In the crash world the disk has no driver, as it is with most network cards of a real machine. */
const configuration = '[crash-kernel]\nadd-parameters = ["initcall_blacklist=nvme_init"]\n';

suite(`a panic of an armed guest with ${release}`, () => {
  let guest: TestGuest;
  let bootIdBefore: string;
  let report: IncidentReport;
  const bootId = 'cat /proc/sys/kernel/random/boot_id';

  /** Runs a script in the directory of the second disk's controller. */
  const inDevice = (script: string): Promise<string> =>
    guest.sh(`cd "$(dirname "$(grep -lx ${disk.class} /sys/bus/pci/devices/*/class)")"; ${script}`);
  const command = async (): Promise<number> => Number(await inDevice('od -An -tu2 -j4 -N2 config'));
  /** A register of the controller, asked from outside. */
  const register = async (offset: number): Promise<number> => {
    const base = Number((await inDevice('cat resource')).split(' ')[0]);
    const answer = await guest.monitor(`xp /1wx 0x${(base + offset).toString(16)}`);
    return Number(answer.trim().split(': ')[1]);
  };

  before(async () => {
    guest = await bootTestGuest('panic', { devices: disk.arguments, configuration });
    bootIdBefore = await guest.sh(bootId);
  });
  after(() => guest?.down());

  test('lab up leaves the guest armed, with the command installed', async () => {
    assert.match(await guest.sh('otherworld status'), /^armed for 6\./);
    assert.equal(bootedCrashWorld(guest.name), false);
  });

  test('a device at work may write to memory', async () => {
    assert.equal(await guest.sh('lsblk -dno NAME,SERIAL | grep second'), 'nvme0n1 second');
    assert.equal((await command()) & MASTER, MASTER);
    assert.equal((await register(CONFIGURATION)) & ENABLED, ENABLED);
  });

  test('lab panic returns when the crash world has settled, with its report', async () => {
    report = await guest.panic('bug');
    assert.equal(report.state, 'settled');
    assert.equal(report.panic?.process?.comm, 'hostname');
    assert.equal(report.panic?.release, await guest.sh('uname -r'));
    assert.deepEqual(report.processes, []);
  });

  test('exec works again, in another boot that has the crash world to it', async () => {
    assert.notEqual(await guest.sh(bootId), bootIdBefore);
    assert.match(await guest.sh('cat /proc/cmdline'), /otherworld\.crash-world/);
    assert.match(await guest.sh(`otherworld report ${report.id}`), new RegExp(report.id));
  });

  test('lab vmcore refuses a dump that would look like one of the dead kernel', () => {
    assert.equal(bootedCrashWorld(guest.name), true);
    const command = join(import.meta.dirname, '../../otherworld');
    const { status, stderr } = spawnSync(command, ['lab', 'vmcore', guest.name, '-o', '/dev/null'], {
      encoding: 'utf8',
    });
    assert.equal(status, 1);
    assert.match(stderr, /is in its crash world, which takes the dead kernel's memory back/);
  });

  test("the dead kernel's last words are kept with the incident", async () => {
    const log = await guest.sh(`cat /var/lib/otherworld/incidents/${report.id}/dmesg*`);
    // With panic_on_oops the kernel leaves for the crash kernel from within the oops, before it would say
    // "panic".
    assert.match(log.slice(-8000), /invalid opcode/);
    assert.match(log.slice(-8000), /RIP: 0010:__x64_sys_sethostname\+0x0\//);
  });

  test('a device that has no driver was reset, and cannot write to the memory that was taken back', async () => {
    assert.ok(report.memory.reclaimedBytes > 0);
    assert.equal(await guest.sh('lsblk -dno NAME'), 'vda');
    assert.equal((await command()) & MASTER, 0);
    assert.notEqual(await register(VERSION), 0);
    assert.equal((await register(CONFIGURATION)) & ENABLED, 0);
  });
});
