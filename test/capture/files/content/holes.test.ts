import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ghostOf } from '../../../../src/capture/files/content/content.ts';
import { restIsHoles } from '../../../../src/capture/files/content/holes.ts';
import { identityOf } from '../../../../src/capture/files/named.ts';
import { FileRefusal } from '../../../../src/capture/files/refusal.ts';
import { sectorsOf } from '../../../../src/linux/fs.ts';
import { mountStruct } from '../../../../src/linux/mount.ts';
import { listedRuns } from '../../../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../../../src/system/page.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { type MadePage, makeFile } from '../../../vmcore/made-file.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';

const SECTORS = PAGE_SIZE / 512;

suite('what is not in memory of a deleted file', () => {
  /** Page 0 is full of ones, page 1 of zeros, page 2 has a one at its very end. */
  const memory = {
    withView: <T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T =>
      use(
        Uint8Array.from({ length }, (_, i) =>
          physical === 0 || (physical === 2 * PAGE_SIZE && i === length - 1) ? 1 : 0,
        ),
      ),
  };
  const isHoles = (
    sectors: number | undefined,
    frames: readonly number[],
    blockBytes = PAGE_SIZE,
  ): boolean => {
    const runs = frames.map((frame, i) => ({
      address: i * PAGE_SIZE,
      pages: 1,
      physical: frame * PAGE_SIZE,
    }));
    return restIsHoles(memory, { sizeBytes: 64 * PAGE_SIZE, sectors, blockBytes }, listedRuns(runs));
  };

  test('is holes if the file takes nothing on its disk', () => {
    assert.equal(isHoles(0, []), true);
  });

  test('is holes if what is in memory accounts for all that the file takes', () => {
    assert.equal(isHoles(2 * SECTORS, [0, 2]), true);
    assert.equal(isHoles(2 * SECTORS + 1, [0, 2]), false);
    assert.equal(isHoles(SECTORS, []), false);
  });

  test('is not told by pages of zeros, which a hole may be that was read', () => {
    assert.equal(isHoles(2 * SECTORS, [0, 1]), false);
    // One block of four.
    assert.equal(isHoles(2, [2], 1024), true);
    assert.equal(isHoles(4, [2], 1024), false);
  });

  test('is not told of a file that may be in its inode', () => {
    const inInode = { sizeBytes: 100, sectors: 0, blockBytes: PAGE_SIZE };
    assert.equal(restIsHoles(memory, inInode, listedRuns([])), false);
  });

  test('is not told where the number of blocks is not in the inode, and reads as none', () => {
    const sectors = (name: string) => sectorsOf({ i_blocks: 0 }, { name, onDisk: true });
    assert.deepEqual(['ext4', 'xfs', 'btrfs'].map(sectors), [0, undefined, undefined]);
    assert.equal(isHoles(undefined, []), false);
  });
});

for (const release of releases) {
  suite(`a deleted file of ${release} of eight pages, of which two are in memory`, () => {
    const two: readonly MadePage[] = [
      { index: 1, fill: 0xa1, flags: ['uptodate'] },
      { index: 6, fill: 0xa6, flags: ['uptodate'] },
    ];
    /** Its pages, or why it cannot come back. */
    function ghost(name: string, sectors: number, pages = two, isAlive = false): readonly number[] | string {
      const kernel = new MadeKernel(release);
      kernel.isAlive = isAlive;
      const { inode } = makeFile(kernel, name, pages);
      kernel.set('inode', inode.address, 'i_blocks', sectors);
      kernel.set('super_block', inode.i_sb, 's_blocksize', PAGE_SIZE);
      const fileSystem = { name, onDisk: true };
      const mount = kernel.bind(mountStruct).at(0n);
      const identity = identityOf(inode, fileSystem);
      const file = {
        ...{ path: '/gone', deleted: true, mount, dentry: 0n, namespace: 0n },
        ...{ inode, fileSystem, identity },
      };
      try {
        return [...ghostOf(kernel, file, 1).runs].map(({ address }) => address / PAGE_SIZE);
      } catch (error) {
        assert.ok(error instanceof FileRefusal);
        assert.equal(error.moment, isAlive ? 'unseen' : undefined);
        return error.reason;
      }
    }
    const lost = 'has the deleted file /gone open, of which 6 of 8 pages are on the disk only';

    test('has holes where it was not written', () => {
      assert.deepEqual(ghost('ext4', 2 * SECTORS), [1, 6]);
      assert.equal(ghost('ext4', 3 * SECTORS), lost);
    });

    test('is refused where nobody knows what it takes on its disk', () => {
      assert.equal(ghost('xfs', 0), lost);
      assert.equal(ghost('btrfs', 0), lost);
    });

    test('may come back of a living kernel, whose disks are not looked at', () => {
      const unseen = `${lost}: whether there is a copy is seen after a panic`;
      assert.equal(ghost('ext4', 3 * SECTORS, two, true), unseen);
    });

    test('is refused if part of a page is in memory only', () => {
      const pages: readonly MadePage[] = [...two, { index: 7, fill: 0xa7, flags: ['dirty'] }];
      assert.match(String(ghost('ext4', 2 * SECTORS, pages)), /of which 1 pages are valid only in part$/);
    });
  });
}
