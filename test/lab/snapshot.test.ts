import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isKeptArmed } from '../../lab/armed.ts';
import type { GuestOptions } from '../../lab/machine.ts';
import { type MachineKind, machineKey, snapshotParts, whileStopped } from '../../lab/snapshot.ts';

const options = { memoryMiB: 2048, cpus: 2, crashKernelMiB: 320, append: '' };
const machine: MachineKind = {
  options,
  image: { directory: '/cache/images/trixie-0123' },
  qemu: { version: '10.0.2' },
  accelerator: 'tcg',
};

suite('a snapshot', () => {
  const others: [string, MachineKind][] = [
    ['image', { ...machine, image: { directory: '/cache/images/trixie-4567' } }],
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
    const elsewhere = { ...machine, image: { directory: '/root/.cache/otherworld/images/trixie-0123' } };
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
