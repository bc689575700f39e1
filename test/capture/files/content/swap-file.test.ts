import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { unwrittenFile } from '../../../../src/capture/files/content/write-back.ts';
import { inodeStruct } from '../../../../src/linux/fs.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { makeFile } from '../../../vmcore/made-file.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';

const CLOCKS = { monotonic: 0n, realtime: 1_000_000_000_000n, boottime: 0n, tai: 0n };

for (const release of releases) {
  suite(`write-back to a file of ${release}`, () => {
    const made = (flags: number): ReturnType<typeof unwrittenFile> => {
      const kernel = new MadeKernel(release);
      const { inode } = makeFile(kernel, 'ext4', [{ index: 0, fill: 1, flags: ['uptodate', 'dirty'] }]);
      const namespace = kernel.allocate('nsproxy');
      kernel.symbols.set('init_nsproxy', namespace);
      kernel.set('inode', inode.address, 'i_nlink', 1);
      kernel.set('inode', inode.address, 'i_ino', 12);
      kernel.set('inode', inode.address, 'i_flags', flags);
      const mounts = kernel.memberAddress('super_block', inode.i_sb, 's_mounts');
      kernel.set('list_head', mounts, 'next', mounts);
      kernel.set('list_head', mounts, 'prev', mounts);
      return unwrittenFile(kernel, kernel.bind(inodeStruct).at(inode.address), CLOCKS);
    };

    test('is done with what its page cache has, or named if it cannot be', () => {
      assert.equal(made(0), 'inode 12 has data that was not written, and no known path');
    });

    test('is not done if the kernel swaps to it: its page cache is older than what is in its blocks', () => {
      assert.equal(made(256), undefined);
    });
  });
}
