import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isWritten } from '../../src/linux/writeback.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

for (const release of releases) {
  test(`an inode of ${release} is not written as long as its state has one of its release's own dirty bits`, () => {
    const kernel = new MadeKernel(release);
    const inode = kernel.allocate('inode');
    for (const list of ['i_io_list', 'i_wb_list']) {
      const head = kernel.memberAddress('inode', inode, list);
      kernel.set('inode', inode, `${list}.next`, head);
      kernel.set('inode', inode, `${list}.prev`, head);
    }
    const dirty = Array.from({ length: 7 }, (_, bit) => bit).filter((bit) => {
      kernel.set('inode', inode, 'i_state', 1 << bit);
      return !isWritten(kernel, inode);
    });
    assert.deepEqual(dirty, release === 'debian12' ? [0, 1, 2] : [3, 4, 5]);
  });
}
