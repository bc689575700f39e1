import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkSizes as checkSizesHere, type Sizes } from '../../lab/sizes.ts';

const host = { cpus: 2, memoryMiB: 24_000 };
const checkSizes = (sizes: Sizes, arm: boolean): void => checkSizesHere(sizes, arm, host);

const usual = { memoryMiB: 2048, cpus: 2, crashKernelMiB: 320 };

suite('sizes of a guest', () => {
  test('the usual ones will do, and small ones that leave enough', () => {
    checkSizes(usual, true);
    checkSizes({ memoryMiB: 704, cpus: 1, crashKernelMiB: 320 }, true);
    checkSizes({ memoryMiB: 512, cpus: 1, crashKernelMiB: 0 }, false);
  });

  test('too little memory is refused by the name of its option', () => {
    assert.throws(() => checkSizes({ ...usual, memoryMiB: 511 }, true), /--memory 511.*at least 512 MiB/);
    assert.throws(() => checkSizes({ ...usual, cpus: 0 }, true), /--cpus 0/);
  });

  test('a crash kernel that leaves too little is refused with what would do', () => {
    assert.throws(
      () => checkSizes({ ...usual, memoryMiB: 703 }, true),
      /leaves 383 MiB.*--memory 704 or more/,
    );
    assert.throws(() => checkSizes({ ...usual, crashKernelMiB: 4096 }, false), /leaves 0 MiB/);
  });

  test('what the host does not have is refused with what there is', () => {
    checkSizes({ ...usual, cpus: 8, memoryMiB: 24_000 }, true);
    assert.throws(() => checkSizes({ ...usual, cpus: 9 }, true), {
      exitStatus: 2,
      message: /^--cpus 9: this host has 2 CPUs, .* 8: --cpus 8 or fewer$/,
    });
    assert.throws(() => checkSizes({ ...usual, memoryMiB: 24_001 }, true), {
      exitStatus: 2,
      message: /^--memory 24001: this host has 24000 MiB in all/,
    });
  });

  test('this host is asked if nobody says what there is', () => {
    checkSizesHere({ ...usual, memoryMiB: 512, crashKernelMiB: 0, cpus: 1 }, false);
    assert.throws(() => checkSizesHere({ ...usual, cpus: 99_999 }, true), /this host has [1-9]\d* CPUs?, /);
    assert.throws(
      () => checkSizesHere({ ...usual, memoryMiB: 999_999_999 }, true),
      /this host has [1-9]\d* MiB/,
    );
  });

  test('nodes need CPUs and memory, disks have a limit, numbers of processes too', () => {
    checkSizes({ ...usual, numaNodes: 2, disks: 20, lastPid: 4_194_303 }, true);
    assert.throws(() => checkSizes({ ...usual, numaNodes: 3 }, true), /--numa 3: .*--cpus 2/);
    assert.throws(
      () => checkSizes({ ...usual, memoryMiB: 704, cpus: 4, numaNodes: 4 }, true),
      /--memory 1024/,
    );
    assert.throws(() => checkSizes({ ...usual, numaNodes: 0 }, true), /--numa 0/);
    assert.throws(() => checkSizes({ ...usual, disks: 0 }, true), /--disk 0/);
    assert.throws(() => checkSizes({ ...usual, disks: 21 }, true), /--disk 21: from 1 to 20/);
    assert.throws(() => checkSizes({ ...usual, lastPid: 4_194_304 }, true), /--last-pid 4194304/);
  });

  test('arming without memory for a crash kernel is refused', () => {
    assert.throws(() => checkSizes({ ...usual, crashKernelMiB: 0 }, true), /--crashkernel 0.*--no-arm/);
  });
});
