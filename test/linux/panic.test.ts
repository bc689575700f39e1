import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { lastWords, panicReason } from '../../src/linux/panic.ts';

/** Records of a log as dmesg prints it; lines that were written by programs begin with `user:`. */
function records(text: string): { text: string; facility: number }[] {
  return text
    .trim()
    .split('\n')
    .map((line) => line.replace(/^\[ *[\d.]+\] /, ''))
    .map((line) => ({ text: line.replace(/^user:/, ''), facility: line.startsWith('user:') ? 1 : 0 }));
}

const reason = (text: string): string | undefined => panicReason(records(text));

describe('the reason of a panic', () => {
  it('is the trap, where an armed kernel with panic_on_oops dies before panic() says anything (6.12)', () => {
    const log = `
[   12.857925] ACPI: button: Power Button [PWRF]
[   41.595850] Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[   41.596347] CPU: 0 UID: 0 PID: 419 Comm: hostname Kdump: loaded Not tainted 6.12.117+deb13-cloud-amd64 #1  Debian 6.12.117-1
[   41.596775] RIP: 0010:__x64_sys_sethostname+0x0/0x240
[   41.600000] Call Trace:
[   41.600100]  <TASK>
[   41.601656] Modules linked in: button nfnetlink qemu_fw_cfg virtio_rng ip_tables x_tables autofs4 virtio_net`;
    assert.equal(reason(log), 'Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI');
  });

  it('is a general protection fault, whatever die() says between its name and its number (6.12)', () => {
    const first =
      'Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] PREEMPT SMP NOPTI';
    const log = `
[   41.595850] ${first}
[   41.596347] CPU: 1 UID: 0 PID: 419 Comm: x Kdump: loaded Not tainted 6.12.117+deb13-cloud-amd64 #1
[   41.601656] Modules linked in: button nfnetlink qemu_fw_cfg`;
    assert.equal(reason(log), first);
  });

  it('is, where no line says it, the last one that is not part of a dump of registers', () => {
    const log = `
[   41.5] something went wrong in a way that nobody knows
[   41.6] CPU: 1 UID: 0 PID: 419 Comm: x
[   41.6] RIP: 0010:__x64_sys_sethostname+0x0/0x240
[   41.6] RAX: 0000000000000000 RBX: 0000000000000000
[   41.6] R10: 0000000000000000 R11: 0000000000000000
[   41.6] Call Trace:
[   41.6]  <TASK>
[   41.6] Modules linked in: button nfnetlink qemu_fw_cfg
user:[   41.7] a program's own words`;
    assert.equal(reason(log), undefined);
    assert.equal(lastWords(records(log)), 'something went wrong in a way that nobody knows');
    assert.equal(lastWords([]), undefined);
  });

  it('is the fault and not what die() makes of it', () => {
    const log = `
[   41.595850] BUG: unable to handle page fault for address: ffffffffdeadbeef
[   41.595900] #PF: supervisor read access in kernel mode
[   41.595910] #PF: error_code(0x0000) - not-present page
[   41.595920] PGD 1e215067 P4D 1e216067 PUD 1e218067 PMD 0
[   41.595930] Oops: 0000 [#1] PREEMPT SMP NOPTI
[   41.596347] CPU: 0 PID: 419 Comm: hostname Kdump: loaded Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.192-2
[   41.601656] Modules linked in: nft_counter`;
    assert.equal(reason(log), 'BUG: unable to handle page fault for address: ffffffffdeadbeef');
  });

  it('is the place of a BUG()', () => {
    const log = `
[  100.000001] ------------[ cut here ]------------
[  100.000002] kernel BUG at mm/slub.c:435!
[  100.000003] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[  100.000004] Modules linked in: fuse
[  100.000005] ---[ end trace 0000000000000000 ]---
[  100.000006] Kernel panic - not syncing: Fatal exception in interrupt`;
    assert.equal(reason(log), 'kernel BUG at mm/slub.c:435!');
  });

  it('is what panic() was called with otherwise', () => {
    const log = `
[  116.078000] sysrq: Trigger a crash
[  116.078841] Kernel panic - not syncing: sysrq triggered crash
[  116.079000] CPU: 0 UID: 0 PID: 419 Comm: sh`;
    assert.equal(reason(log), 'Kernel panic - not syncing: sysrq triggered crash');
    const hung = `
[  363.1] INFO: task dd:411 blocked for more than 120 seconds.
[  363.2] Kernel panic - not syncing: hung_task: blocked tasks`;
    assert.equal(reason(hung), 'Kernel panic - not syncing: hung_task: blocked tasks');
  });

  it('is the last oops, if the kernel had survived another', () => {
    const log = `
[   10.1] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   10.2] Oops: 0002 [#1] SMP
[   10.3] ---[ end trace 0000000000000000 ]---
[   20.1] general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#2] SMP
[   20.2] Modules linked in:`;
    assert.equal(
      reason(log),
      'general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#2] SMP',
    );
  });

  it('is the warning, where warnings are fatal', () => {
    const log = `
[   10.1] WARNING: CPU: 1 PID: 33 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
[   10.2] Kernel panic - not syncing: kernel: panic_on_warn set ...`;
    assert.equal(
      reason(log),
      'WARNING: CPU: 1 PID: 33 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110',
    );
  });

  it('is never what a program wrote', () => {
    assert.equal(reason('[ 1.0] user:Kernel panic - not syncing: said somebody'), undefined);
  });

  it('is a complaint if there is nothing else', () => {
    assert.match(
      reason('[ 1.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [sh:99]') ?? '',
      /soft lockup/,
    );
    assert.equal(reason('[ 1.0] systemd[1]: Started x.service'), undefined);
  });
});
