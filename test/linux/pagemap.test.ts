import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ghostOf } from '../../src/capture/files/content/content.ts';
import { pageCache } from '../../src/capture/files/content/page-cache.ts';
import { CaptureContext } from '../../src/capture/files/context.ts';
import { captureSharedMemory } from '../../src/capture/files/memory/shared-memory.ts';
import { noteSwapped } from '../../src/capture/files/memory/swap-note.ts';
import { identityOf } from '../../src/capture/files/named.ts';
import { addressSpaceStruct, type Inode } from '../../src/linux/fs.ts';
import { mountStruct } from '../../src/linux/mount.ts';
import { cachedPages } from '../../src/linux/pagemap.ts';
import { swapAddress } from '../../src/linux/readers/swap-entries.ts';
import { shmemInodeInfo } from '../../src/linux/shmem.ts';
import type { PageRuns } from '../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { STORED } from '../../src/vmcore/stored-pages.ts';
import { releases } from '../vmcore/fixtures.ts';
import { type MadePage, makeFile } from '../vmcore/made-file.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';
import { everythingStored, MadeSwapArea } from '../vmcore/made-swap.ts';

/** `xa_head` in an xarray, behind its lock. */
const XA_HEAD = 8n;

for (const release of releases) {
  suite(`page cache of ${release} on the second NUMA node`, () => {
    const made = (
      pages: readonly MadePage[],
    ): { kernel: MadeKernel; inode: Inode; frames: readonly number[] } => {
      const kernel = new MadeKernel(release);
      return { kernel, ...makeFile(kernel, 'tmpfs', pages) };
    };
    /** The first byte of each page, by its number. */
    const contentOf = (kernel: MadeKernel, runs: PageRuns): number[][] =>
      [...runs].flatMap(({ address, pages, physical }) =>
        Array.from({ length: pages }, (_, i) => [
          address / PAGE_SIZE + i,
          kernel.physical.view(physical + i * PAGE_SIZE, 1)[0] ?? -1,
        ]),
      );
    const three: readonly MadePage[] = [
      { index: 0, fill: 0xa0, flags: ['uptodate'] },
      { index: 2, fill: 0xa2, flags: ['uptodate', 'dirty'] },
      { index: 3, fill: 0xa3, flags: ['uptodate', 'writeback'] },
    ];

    test('a page is told to be dirty, being written, or clean by its flags, whatever its node', () => {
      const { kernel, inode } = made(three);
      const states = [...cachedPages(kernel, inode.i_mapping, false)].map(({ index, state }) => [
        index,
        state,
      ]);
      assert.deepEqual(states, [
        [0, 'written'],
        [2, 'unwritten'],
        [3, 'unwritten'],
      ]);
      const cache = pageCache(kernel, inode.i_mapping, false);
      assert.deepEqual(contentOf(kernel, cache.unwritten), [
        [2, 0xa2],
        [3, 0xa3],
      ]);
      assert.deepEqual(contentOf(kernel, cache.written), [[0, 0xa0]]);
    });

    test('a page that is not up to date has no content: of a file it is valid in part, of shared memory zeros', () => {
      const { kernel, inode } = made([
        { index: 1, fill: 1, flags: ['locked', 'dirty'] },
        { index: 5, fill: 5, flags: ['locked'] },
      ]);
      assert.equal(pageCache(kernel, inode.i_mapping, false).partial, 1);
      assert.deepEqual(contentOf(kernel, pageCache(kernel, inode.i_mapping, true).runs), []);
    });

    test('a memfd has what was written to it', () => {
      const { kernel, inode } = made(three);
      const list = { tasks: [], lost: [], damage: [], isComplete: true };
      const clocks = { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n };
      const context = new CaptureContext(kernel, clocks, [], list);
      const { sizeBytes, runs } = captureSharedMemory(context, inode, 'memfd');
      assert.equal(sizeBytes, 8 * PAGE_SIZE);
      assert.deepEqual(contentOf(kernel, runs), [
        [0, 0xa0],
        [2, 0xa2],
        [3, 0xa3],
      ]);
    });

    test('a deleted file of a tmpfs has what was written to it', () => {
      const { kernel, inode } = made(three);
      const fileSystem = { name: 'tmpfs', onDisk: false };
      const mount = kernel.bind(mountStruct).at(0n);
      const identity = identityOf(inode, fileSystem);
      const file = {
        ...{ path: '/tmp/gone', deleted: true, mount, dentry: 0n, namespace: 0n },
        ...{ inode, fileSystem, identity },
      };
      assert.deepEqual(contentOf(kernel, ghostOf(kernel, file, 1).runs), [
        [0, 0xa0],
        [2, 0xa2],
        [3, 0xa3],
      ]);
    });

    /** Shared memory of which places 1 and, in one entry, 4 to 5 are in swap; `counted` by its inode. */
    const withSwap = (counted: number): { kernel: MadeKernel; inode: Inode; swap: MadeSwapArea } => {
      const { kernel, inode } = made(three);
      const swap = new MadeSwapArea(kernel);
      for (const slot of [8, 20, 21]) swap.use(slot, 0xbf);
      const info = kernel.bind(shmemInodeInfo).containerOf(inode.address, 'vfs_inode');
      kernel.set('shmem_inode_info', info.address, 'swapped', counted);
      const node =
        kernel.memory.u64(kernel.bind(addressSpaceStruct).at(inode.i_mapping).i_pages + XA_HEAD) & ~3n;
      kernel.set('xa_node', node, 'slots[1]', (8n << 1n) | 1n);
      kernel.set('xa_node', node, 'slots[4]', (20n << 1n) | 1n);
      kernel.set('xa_node', node, 'slots[5]', (4n << 2n) | 2n);
      kernel.set('xa_node', node, 'count', 6);
      return { kernel, inode, swap };
    };

    test('shared memory in swap is where its slots are, also of an entry for several pages', () => {
      const { kernel, inode } = withSwap(3);
      kernel.stored = everythingStored;
      const { runs, lost } = pageCache(kernel, inode.i_mapping, true);
      assert.equal(lost, undefined);
      const stored = [...runs].filter(({ physical }) => physical >= STORED);
      assert.deepEqual(stored, [
        { address: PAGE_SIZE, pages: 1, physical: swapAddress(0, 8) },
        { address: 4 * PAGE_SIZE, pages: 2, physical: swapAddress(0, 20) },
      ]);
      assert.equal(runs.pages, 6);
    });

    test('shared memory that is in swap and cannot be had is counted, with the reason', () => {
      const { kernel, inode } = withSwap(3);
      const { lost } = pageCache(kernel, inode.i_mapping, true);
      assert.deepEqual(lost, { pages: 3, why: 'the dump does not have what is in swap' });
      const list = { tasks: [], lost: [], damage: [], isComplete: true };
      const context = new CaptureContext(
        kernel,
        { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n },
        [],
        list,
      );
      assert.throws(
        () => captureSharedMemory(context, inode, 'memfd'),
        /has shared memory of which 3 pages are in swap: the dump does not have/,
      );
    });

    test('shared memory that a living kernel has in swap is noted for who is protected', () => {
      const { kernel, inode } = withSwap(3);
      const clocks = { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n };
      const list = { tasks: [], lost: [], damage: [], isComplete: true };
      const context = new CaptureContext(kernel, clocks, [{ pid: 5, task: 0n, filesId: 1 }], list);
      noteSwapped(context, inode.i_mapping, 'shared memory', [5, 6]);
      assert.deepEqual([...context.notes], []);
      kernel.isAlive = true;
      noteSwapped(context, inode.i_mapping, 'shared memory', [5, 6]);
      const note = 'has 3 pages of shared memory in swap, which is read after a panic';
      assert.deepEqual([...context.notes], [[5, [note]]]);
    });

    test('shared memory in swap of a living kernel is refused where it will not be read', () => {
      const { kernel, inode } = withSwap(3);
      kernel.isAlive = true;
      const { lost } = pageCache(kernel, inode.i_mapping, true);
      if (release === 'debian13') assert.equal(lost, undefined);
      else assert.match(lost?.why ?? '', /this was tried with Linux 6\.12 only/);
    });

    test('an entry of shared memory in swap that was lost is found out: it would read as zeros', () => {
      const { kernel, inode } = withSwap(4);
      assert.throws(() => pageCache(kernel, inode.i_mapping, true), /has 3 pages in swap but counts 4/);
    });

    test('an entry for several pages that was being cut up is found out: they would all be the first', () => {
      for (const slots of [
        [20, 20, 20],
        [20, 21, 20],
      ]) {
        const { kernel, inode } = withSwap(4);
        kernel.stored = everythingStored;
        const node =
          kernel.memory.u64(kernel.bind(addressSpaceStruct).at(inode.i_mapping).i_pages + XA_HEAD) & ~3n;
        for (const [i, slot] of slots.entries())
          kernel.set('xa_node', node, `slots[${4 + i}]`, (BigInt(slot) << 1n) | 1n);
        kernel.set('xa_node', node, 'count', 7);
        assert.throws(
          () => pageCache(kernel, inode.i_mapping, true),
          /has slot 20 of swap area 0 twice/,
          `${slots}`,
        );
      }
    });

    test('shared memory of which a page could not be read from swap is refused like that', () => {
      // The entry of type 30 is of no area, and its inode counts it no longer.
      const { kernel, inode } = withSwap(2);
      kernel.stored = everythingStored;
      const node =
        kernel.memory.u64(kernel.bind(addressSpaceStruct).at(inode.i_mapping).i_pages + XA_HEAD) & ~3n;
      kernel.set('xa_node', node, 'slots[1]', (30n << 59n) | 1n);
      const { lost } = pageCache(kernel, inode.i_mapping, true);
      assert.deepEqual(lost, { pages: 1, why: 'a page could not be read from there, or is poisoned' });
    });

    test('a page of another file is found out', () => {
      const { kernel, inode, frames } = made(three);
      kernel.set('page', kernel.pfnToPage(frames[2] ?? 0), 'index', 9);
      assert.throws(() => [...cachedPages(kernel, inode.i_mapping, false)], /page at 3 that does not belong/);
    });
  });
}
