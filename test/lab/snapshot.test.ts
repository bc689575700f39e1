import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { isKeptArmed } from '../../lab/armed.ts';
import { imageIdentity } from '../../lab/image.ts';
import type { GuestOptions } from '../../lab/machine.ts';
import { type MachineKind, machineKey, snapshotParts, whileStopped } from '../../lab/snapshot.ts';
import { sweepSnapshots } from '../../lab/snapshot-sweep.ts';

const options = { memoryMiB: 2048, cpus: 2, crashKernelMiB: 320, append: '' };
const machine: MachineKind = {
  options,
  image: { directory: '/cache/images/trixie-0123', identity: 'a' },
  qemu: { version: '10.0.2' },
  accelerator: 'tcg',
};

suite('a snapshot', () => {
  const others: [string, MachineKind][] = [
    ['image', { ...machine, image: { directory: '/cache/images/trixie-4567', identity: 'a' } }],
    ['build of its image', { ...machine, image: { ...machine.image, identity: 'b' } }],
    ['memory', { ...machine, options: { ...options, memoryMiB: 3072 } }],
    ['number of CPUs', { ...machine, options: { ...options, cpus: 4 } }],
    ['number of NUMA nodes', { ...machine, options: { ...options, numaNodes: 2 } }],
    ['reservation', { ...machine, options: { ...options, crashKernelMiB: 256 } }],
    ['kernel parameter', { ...machine, options: { ...options, append: 'nox2apic' } }],
    ['device', { ...machine, options: { ...options, devices: ['-device', 'nvme'] } }],
    ['QEMU', { ...machine, qemu: { version: '10.1.0' } }],
    ['accelerator', { ...machine, accelerator: 'kvm' }],
  ];
  for (const [what, other] of others) {
    test(`is of no machine with another ${what}`, () => {
      assert.notEqual(machineKey(other), machineKey(machine));
    });
  }

  test('is of every machine that is the same, wherever the images are', () => {
    const directory = '/root/.cache/otherworld/images/trixie-0123';
    const elsewhere = { ...machine, image: { directory, identity: 'a' } };
    const outwards = { ...options, numaNodes: 1, name: 'other', forwards: [{ host: 8080, guest: 80 }] };
    assert.equal(machineKey({ ...elsewhere, options: outwards }), machineKey(machine));
  });

  test('of an armed guest is of one installation, and lies with the one of its boot', () => {
    const [boot, ...none] = snapshotParts(machine);
    const [first, armed] = snapshotParts(machine, 'one installation');
    const [second, other] = snapshotParts(machine, 'another');
    assert.deepEqual([boot, none, first, second], [machineKey(machine), [], boot, boot]);
    assert.notEqual(armed, other);
    assert.equal(snapshotParts(machine, 'another')[1], other);
  });

  test('of an armed guest is for one that has nothing of its own besides its machine', () => {
    const asked: GuestOptions = { ...options, name: 'a', release: 'trixie', packages: [], forwards: [] };
    assert.equal(isKeptArmed(asked), false);
    assert.equal(isKeptArmed({ ...asked, quick: true }), true);
    assert.equal(isKeptArmed({ ...asked, quick: true, users: false, lastPid: 0, disks: 1 }), true);
    for (const own of [{ disks: 2 }, { users: true }, { lastPid: 4_000_000 }])
      assert.equal(isKeptArmed({ ...asked, quick: true, ...own }), false);
  });
});

suite('a guest of which a snapshot is taken', () => {
  test('goes on, also if it cannot be saved', async () => {
    for (const problem of [undefined, new Error('no space left')]) {
      const said: string[] = [];
      const execute = async (command: string): Promise<void> => void said.push(command);
      const save = async (): Promise<void> => {
        said.push('save');
        if (problem) throw problem;
      };
      const end = await whileStopped({ execute }, save).catch((error: unknown) => error);
      assert.deepEqual([end, said], [problem, ['stop', 'save', 'cont']]);
    }
  });
});

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'otherworld-snapshots-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

suite('what is kept of snapshots', () => {
  const NOBODY = 4_194_305;

  function make(root: string, minutesAgo: Readonly<Record<string, number>>): void {
    for (const name of Object.keys(minutesAgo)) {
      mkdirSync(join(root, name), { recursive: true });
      writeFileSync(join(root, name, 'memory'), '');
    }
    for (const [name, minutes] of Object.entries(minutesAgo)) {
      const used = new Date(Date.now() - minutes * 60_000);
      utimesSync(join(root, name), used, used);
    }
  }

  test('is the newest armed ones of each machine, whatever their age, and all that are in use', (t) => {
    const root = scratch(t);
    make(root, { 'a/armed-1': 1, 'a/armed-2': 2, 'a/armed-3': 3, 'a/armed-4': 60, 'a/armed-5': 11 });
    make(root, { 'b/armed-1': 9000, 'b/armed-2': 8000, 'b/armed-3': 7000, c: 9000 });
    sweepSnapshots(root);
    assert.deepEqual(readdirSync(root).sort(), ['a', 'b', 'c']);
    assert.deepEqual(readdirSync(join(root, 'a')).sort(), ['armed-1', 'armed-2', 'armed-3']);
    assert.deepEqual(readdirSync(join(root, 'b')).sort(), ['armed-2', 'armed-3']);
  });

  test('is none of what is not whole, unless somebody is at work on it', (t) => {
    const root = scratch(t);
    const armed = (pid: number): string => `a/armed-1.${pid}`;
    make(root, { [armed(NOBODY)]: 0, [armed(process.pid)]: 5, [armed(process.ppid)]: 120, a: 0 });
    make(root, { [`b.${NOBODY}`]: 0, [`c.${process.pid}`]: 5 });
    sweepSnapshots(root);
    assert.deepEqual(readdirSync(root).sort(), ['a', `c.${process.pid}`]);
    assert.deepEqual(readdirSync(join(root, 'a')), [`armed-1.${process.pid}`, 'memory']);
  });
});

suite("an image's identity", () => {
  test('is written in it, and is the time of its disk where it is not', (t) => {
    const image = scratch(t);
    const disk = join(image, 'root.img');
    writeFileSync(disk, '');
    utimesSync(disk, 1000, 1000);
    assert.equal(imageIdentity(image), '1000000');
    writeFileSync(join(image, 'identity'), 'its own');
    assert.equal(imageIdentity(image), 'its own');
  });
});
