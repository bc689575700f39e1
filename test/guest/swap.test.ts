// Boots one armed guest with three swap areas (a partition, a whole disk, a file), has a program's memory
// pushed out to them, kills the kernel, and compares every byte in the crash world, where the partition is
// switched on again.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, release, type TestGuest } from './harness.ts';

const OUT = '/srv/out/swapped';

/** A partition table with one partition of type 82 behind the first MiB, and an id. */
const PARTITION = `
import os, struct
disk = os.open("/dev/vdb", os.O_RDWR)
sectors = os.lseek(disk, 0, os.SEEK_END) // 512
entry = struct.pack("<B3sB3sII", 0, b"\\0" * 3, 0x82, b"\\0" * 3, 2048, sectors - 2048)
table = b"\\0" * 440 + struct.pack("<IH", 0x4f570001, 0) + entry + b"\\0" * 48 + b"\\x55\\xaa"
os.pwrite(disk, table, 0)
os.fsync(disk)
`;

/** See `untriedSwap` in src/linux/readers/swap-areas.ts. */
const skip = release === 'trixie' ? false : 'swap areas are read of Linux 6.12 only';

suite(`memory in swap on ${release}`, { skip }, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let expected = '';
  let checked = '';
  let areas = '';
  let pids: [number, number] = [0, 0];
  /** KiB of each process that were in swap at the panic, as /proc has them. */
  let inSwap: number[] = [];

  before(async () => {
    guest = await bootTestGuest('swap', { furniture: { disks: 3 } });
    await guest.sh('mkdir -p /srv/out; umount /srv/disk2 /srv/disk3; sed -i "/disk[23]/d" /etc/fstab');
    await guest.sh(`cat > /srv/partition.py <<'EOF'\n${PARTITION}EOF\npython3 /srv/partition.py`);
    await guest.sh('blockdev --rereadpt /dev/vdb; udevadm settle; mkswap /dev/vdb1; mkswap /dev/vdc');
    // Not allocated alone but written: what the page cache has of it then must not be written back over it.
    await guest.sh(
      'dd if=/dev/urandom of=/srv/swapfile bs=1M count=64; chmod 600 /srv/swapfile; mkswap /srv/swapfile',
    );
    await guest.sh('echo "UUID=$(blkid -s UUID -o value /dev/vdb1) none swap sw,pri=5 0 0" >> /etc/fstab');
    await guest.sh('for area in /dev/vdb1 /dev/vdc /srv/swapfile; do swapon -p 5 $area; done');
    await guest.copyIn(join(import.meta.dirname, 'programs/swapped.py'), '/srv/swapped.py');
    expected = await guest.sh('python3 /srv/swapped.py expected');
    await guest.sh(`systemd-run --quiet --unit=swapped python3 /srv/swapped.py ${OUT}`);
    const ready = await guest.until(`grep ready ${OUT}`, 120);
    const [, parent = 0, child = 0] = ready.split(' ').map(Number);
    pids = [parent, child];
    await guest.sh('otherworld protect --unit swapped');
    const group = '/sys/fs/cgroup/system.slice/swapped.service';
    // Ends with an error when there is no more to be had than it did.
    await guest.until(
      `echo 64M > ${group}/memory.reclaim; test $(cat ${group}/memory.swap.current) -gt 40000000`,
      120,
    );
    checked = await guest.sh(`otherworld check --pid ${parent} ${child} || true`);
    // Recently changed: of such files the crash world writes back what the page cache has.
    await guest.sh('chmod 600 /srv/swapfile');
    const swapOf = (pid: number) => guest.sh(`awk '/^VmSwap:/ { print $2 }' /proc/${pid}/status`);
    inSwap = [Number(await swapOf(parent)), Number(await swapOf(child))];
    areas = await guest.sh('sed 1d /proc/swaps');
    report = await guest.panic('sysrq');
  });
  after(() => guest?.down());

  test('was pushed out to all three areas, before the panic', () => {
    const used = areas.split('\n').map((line) => line.split(/\s+/));
    assert.deepEqual(used.map(([path]) => path).sort(), ['/dev/vdb1', '/dev/vdc', '/srv/swapfile']);
    for (const [path, , , kibibytes] of used) assert.ok(Number(kibibytes) > 2048, `${path}: ${kibibytes}`);
    for (const kibibytes of inSwap) assert.ok(kibibytes > 8192, `${inSwap}`);
  });

  test('is said to come back by a look at the living system', () => {
    assert.doesNotMatch(checked, /refused/);
    assert.match(checked, /in swap, which is read after a panic/);
  });

  test('comes back, each byte, in two processes that shared it', async () => {
    for (const pid of pids) assertRestored(report, pid);
    await guest.sh(`kill -HUP ${pids.join(' ')}`);
    for (const pid of pids) {
      await guest.until(`test -e ${OUT}.${pid}`, 60);
      assert.equal(await guest.sh(`cat ${OUT}.${pid}`), expected, `process ${pid}`);
    }
  });

  test('comes back of a file on tmpfs that nobody has open', async () => {
    const bytes =
      'python3 -c \'import random, sys; sys.stdout.buffer.write(random.Random("loose").randbytes(1 << 20))\'';
    await guest.sh(`${bytes} | cmp - /dev/shm/loose`);
  });

  test('the areas are there as they were, and one is in use again as the system boots', async () => {
    await guest.until('grep -q "^/dev/vd[a-z]1 " /proc/swaps', 60);
    assert.match(await guest.sh('blkid -p -s TYPE -o value /dev/vdc'), /swap/);
  });
});
