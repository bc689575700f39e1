import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, suite, test } from 'node:test';
import {
  type BlockDevice,
  blockDevices,
  findFileDevice,
  findSwapDevice,
} from '../../../src/crash-world/swap/block-devices.ts';
import { hasExtents } from '../../../src/crash-world/swap/file-extents.ts';
import type { SwapDevice } from '../../../src/linux/readers/swap-areas.ts';

const PCI = '/devices/pci0000:00';
const partition: SwapDevice = {
  ...{ name: 'sda2', number: 0x802, sectors: 4096, partition: 2, startSector: 2048 },
  partitionUuid: '1234abcd-02',
  place: `${PCI}/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2`,
};
const disk: SwapDevice = {
  ...{ name: 'vdb', number: 0xfd10, sectors: 4096, partition: 0, startSector: 0, partitionUuid: '' },
  place: `${PCI}/0000:00:05.0/virtio2/block/vdb`,
};

function now({ partitionUuid: _, ...was }: SwapDevice, change: Partial<BlockDevice> = {}): BlockDevice {
  return { ...was, ...change };
}

suite('the device of a swap area, in the crash kernel', () => {
  const uuids: Readonly<Record<string, string>> = {
    sda2: '1234abcd-02',
    sdb2: '1234ABCD-02',
    sdc2: '0000aaaa-02',
  };
  const uuidOf = ({ name }: BlockDevice): string | undefined => uuids[name];

  test('is the partition of the same id, whatever it is called now', () => {
    const moved = now(partition, {
      name: 'sdb2',
      number: 0x812,
      place: partition.place.replace('ata1', 'ata2'),
    });
    assert.equal(findSwapDevice(partition, [now(partition, { name: 'sdc2' }), moved], uuidOf), moved);
  });

  test('is refused if two partitions have the id, or none', () => {
    const twice = [now(partition), now(partition, { name: 'sdb2' })];
    assert.equal(findSwapDevice(partition, twice, uuidOf), 'is not the only one of its kind: sda2, sdb2');
    const other = [now(partition, { name: 'sdc2' })];
    assert.match(String(findSwapDevice(partition, other, uuidOf)), /is not found among the disks/);
  });

  test('has the same size, number and beginning', () => {
    for (const change of [{ sectors: 4104 }, { partition: 3 }, { startSector: 4096 }])
      assert.match(String(findSwapDevice(partition, [now(partition, change)], uuidOf)), /is not found/);
  });

  test('an id that is none tells nothing, nor does the place of one of several disks', () => {
    const nameless = { ...partition, partitionUuid: '00000000-02' };
    assert.match(String(findSwapDevice(nameless, [now(nameless)], () => '00000000-02')), /cannot be told/);
    const whole = {
      ...partition,
      partition: 0,
      partitionUuid: '',
      place: `${PCI}/0000:00:1f.2/ata1/block/sda`,
    };
    assert.match(String(findSwapDevice(whole, [now(whole)])), /cannot be told from other disks/);
  });

  test('is the disk in the same place, with another number there and another name', () => {
    const moved = now(disk, { name: 'vdc', place: `${PCI}/0000:00:05.0/virtio7/block/vdc` });
    const other = now(disk, { name: 'vdd', place: `${PCI}/0000:00:06.0/virtio2/block/vdd` });
    assert.equal(findSwapDevice(disk, [other, moved]), moved);
    assert.match(String(findSwapDevice(disk, [other])), /is not found/);
  });

  test('of a partition with an id is not one in another place', () => {
    const was = { ...disk, partition: 1, name: 'vdb1', place: `${disk.place}/vdb1`, partitionUuid: 'abc-01' };
    const copied = now(was, { place: `${PCI}/0000:00:06.0/virtio2/block/vdb/vdb1` });
    assert.match(String(findSwapDevice(was, [copied], () => 'abc-01')), /is not found/);
    assert.equal(findSwapDevice(was, [copied, now(was)], () => 'abc-01') instanceof Object, true);
  });

  test('of a partition with an id is not its copy on a disk whose place tells nothing', () => {
    const was = { ...disk, partition: 1, name: 'vdb1', place: `${disk.place}/vdb1`, partitionUuid: 'abc-01' };
    const place = `${PCI}/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1`;
    const copied = now(was, { name: 'sda1', place });
    assert.match(String(findSwapDevice(was, [copied], () => 'abc-01')), /is not found/);
  });

  test('of a swap file is the one that its file system is mounted from, and not a copy', () => {
    const copied = now(disk, { name: 'vdc', number: 0xfd20, place: disk.place.replace('05.0', '06.0') });
    const devices = [now(disk), copied];
    assert.equal(findFileDevice(disk, disk.number, devices), devices[0]);
    assert.match(String(findFileDevice(disk, copied.number, devices)), /is on another disk than before/);
    assert.match(String(findFileDevice(disk, copied.number, [copied])), /is on vdb, which is not found/);
  });

  test('of NVMe is the only namespace like it: their numbers may be others', () => {
    const place = `${PCI}/0000:00:04.0/nvme/nvme0/nvme0n1`;
    const was = { ...disk, name: 'nvme0n1', place };
    const first = now(was, { name: 'nvme1n1', place: place.replaceAll('nvme0', 'nvme1') });
    const second = now(was, { name: 'nvme1n2', place: `${PCI}/0000:00:04.0/nvme/nvme1/nvme1n2` });
    assert.equal(findSwapDevice(was, [first]), first);
    assert.match(String(findSwapDevice(was, [second, first])), /is not the only one of its kind/);
  });

  test('is looked for among all that are no virtual ones', () => {
    const sys = mkdtempSync(join(tmpdir(), 'otherworld-sys-'));
    after(() => rmSync(sys, { recursive: true }));
    mkdirSync(join(sys, 'class/block'), { recursive: true });
    const add = (place: string, files: Readonly<Record<string, string>>): void => {
      mkdirSync(join(sys, place), { recursive: true });
      for (const [name, text] of Object.entries(files)) writeFileSync(join(sys, place, name), `${text}\n`);
      symlinkSync(join('../..', place), join(sys, 'class/block', basename(place)));
    };
    const place = disk.place.slice(1);
    add(place, { dev: '253:16', size: '8192' });
    add(`${place}/vdb2`, { dev: '259:300', size: '4096', partition: '2', start: '2048' });
    add('devices/virtual/block/dm-0', { dev: '254:0', size: '8192' });
    add('devices/pci0000:00/gone', {});
    assert.deepEqual(blockDevices(sys), [
      {
        ...{ name: 'vdb', number: 0xfd10, sectors: 8192, partition: 0, startSector: 0 },
        place: disk.place,
      },
      {
        ...{ name: 'vdb2', number: (259 << 8) | (300 & 0xff) | ((300 & ~0xff) << 12) },
        ...{ sectors: 4096, partition: 2, startSector: 2048, place: `${disk.place}/vdb2` },
      },
    ]);
  });
});

suite('a swap file', () => {
  const ranges = [
    { start: 0x8000, end: 0x10000 },
    { start: 0x4000, end: 0x8000 },
    { start: 0x20000, end: 0x24000 },
  ];

  test('has the places of its slots, in whatever pieces its file system tells them', () => {
    const extents = [
      { slot: 0, slots: 12, block: 4 },
      { slot: 12, slots: 2, block: 0x21 },
    ];
    assert.equal(hasExtents(ranges, extents), true);
    // In the order of slots, which need not be that of places.
    assert.equal(hasExtents(ranges, extents.toReversed()), true);
    const last = { slot: 14, slots: 1, block: 0x24 };
    assert.equal(hasExtents(ranges, [last, ...extents]), false);
  });

  test('that lies elsewhere, or not as far, is another', () => {
    assert.equal(hasExtents(ranges, [{ slot: 0, slots: 13, block: 4 }]), false);
    assert.equal(hasExtents(ranges, [{ slot: 0, slots: 1, block: 0x30 }]), false);
    assert.equal(hasExtents([], [{ slot: 0, slots: 1, block: 4 }]), false);
  });
});
