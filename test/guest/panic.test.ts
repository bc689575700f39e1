// Boots one armed guest per release and kills its kernel: what `lab panic` promises, whatever is protected.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { Report } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';

suite(`a panic of an armed guest with ${release}`, () => {
  let guest: TestGuest;
  let bootIdBefore: string;
  let report: Report;
  const bootId = 'cat /proc/sys/kernel/random/boot_id';

  before(async () => {
    guest = await bootTestGuest('panic');
    bootIdBefore = await guest.sh(bootId);
  });
  after(() => guest?.down());

  test('lab up leaves the guest armed, with the command installed', async () => {
    assert.match(await guest.sh('otherworld status'), /^armed for 6\./);
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

  test("the dead kernel's last words are kept with the incident", async () => {
    const log = await guest.sh(`cat /var/lib/otherworld/incidents/${report.id}/dmesg*`);
    // With panic_on_oops the kernel leaves for the crash kernel from within the oops, before it would say "panic".
    assert.match(log.slice(-8000), /invalid opcode/);
    assert.match(log.slice(-8000), /RIP: 0010:__x64_sys_sethostname\+0x0\//);
  });
});
