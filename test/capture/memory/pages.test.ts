import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type AreaPages, privatePages } from '../../../src/capture/memory/pages.ts';
import { notPresentReason } from '../../../src/capture/memory/rss.ts';
import { PageDescriptors } from '../../../src/linux/readers/page-owner.ts';
import { swapAddress } from '../../../src/linux/readers/swap-entries.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { type Release, releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { MadeProcess } from '../../vmcore/made-process.ts';
import { everythingStored, MadeSwapArea } from '../../vmcore/made-swap.ts';

const BASE = 0x7f00_0000_0000;

const shape = { start: BASE, end: BASE + 16 * PAGE_SIZE, pgoff: 0, ofFile: false };

function madePages(release: Release): { process: MadeProcess; swap: MadeSwapArea; pages: () => AreaPages } {
  const kernel = new MadeKernel(release);
  kernel.stored = everythingStored;
  const process = new MadeProcess(kernel, [{ start: BASE, pages: 16 }]);
  const swap = new MadeSwapArea(kernel);
  const pages = (): AreaPages => privatePages(kernel, process.mm.pgd, shape, new PageDescriptors(kernel));
  return { process, swap, pages };
}

for (const release of releases) {
  suite(`private memory of ${release}`, () => {
    test('that is in swap is where its slots are, in as few runs as they are', () => {
      const { process, swap, pages } = madePages(release);
      for (const [page, slot] of [
        [3, 8],
        [4, 9],
        [5, 20],
      ] as const) {
        process.swapOut(BASE + page * PAGE_SIZE, slot);
        swap.use(slot);
      }
      const { notPresent, runs, resident, swapped } = pages();
      assert.equal(notPresent, undefined);
      assert.deepEqual([resident, swapped, runs.pages], [0, 3, 3]);
      assert.deepEqual(
        [...runs],
        [
          { address: BASE + 3 * PAGE_SIZE, pages: 2, physical: swapAddress(0, 8) },
          { address: BASE + 5 * PAGE_SIZE, pages: 1, physical: swapAddress(0, 20) },
        ],
      );
    });

    test('that is in swap is found whatever else its entries say: soft-dirty, exclusive, userfaultfd', () => {
      const { process, swap, pages } = madePages(release);
      [0x2n, 0x4n, 0x8n, 0xen].forEach((bits, i) => {
        process.swapOut(BASE + i * PAGE_SIZE, 8 + i, 0, bits);
        swap.use(8 + i);
      });
      assert.deepEqual([...pages().runs], [{ address: BASE, pages: 4, physical: swapAddress(0, 8) }]);
    });

    test('that the swap cache has is taken from there, though the entry is of the area', () => {
      const { process, swap, pages } = madePages(release);
      process.swapOut(BASE, 8);
      swap.use(8, 0x41);
      const pfn = swap.cache(8, 0xab, ['uptodate', 'dirty']);
      assert.deepEqual([...pages().runs], [{ address: BASE, pages: 1, physical: pfn * PAGE_SIZE }]);
    });

    test('that the swap cache has for another place is refused', () => {
      const { process, swap, pages } = madePages(release);
      process.swapOut(BASE + 2 * PAGE_SIZE, 8);
      swap.use(8, 0x41);
      const page = swap.kernel.pfnToPage(swap.cache(8, 0xab, ['uptodate', 'dirty']));
      swap.kernel.set('page', page, 'mapping', 0x1001n);
      swap.kernel.set('page', page, 'index', 2);
      assert.equal(pages().notPresent, undefined);
      swap.kernel.set('page', page, 'index', 3);
      assert.match(pages().notPresent?.why ?? '', /belongs to place 3 elsewhere/);
    });

    test('that is in swap and cannot be had is counted and has a reason', () => {
      const { process, swap, pages } = madePages(release);
      swap.kernel.stored = undefined;
      process.swapOut(BASE + 3 * PAGE_SIZE, 8);
      process.swapOut(BASE + 4 * PAGE_SIZE, 9);
      swap.use(8);
      const { notPresent, runs, swapped } = pages();
      const why = 'the dump does not have what is in swap';
      assert.deepEqual(notPresent, { pages: 2, first: BASE + 3 * PAGE_SIZE, isSwap: true, why });
      assert.deepEqual([runs.pages, swapped], [0, 2]);
      assert.equal(notPresentReason(notPresent!), `has 2 pages in swap, the first at 0x7f0000003000: ${why}`);
    });

    test('that is being moved, is poisoned, or has a marker is no page in swap', () => {
      for (const type of [1, 23, 24, 26, 31]) {
        const { process, pages } = madePages(release);
        process.swapOut(BASE, 8, type);
        const { notPresent } = pages();
        assert.equal(notPresent?.isSwap, false, `${type}`);
        assert.match(notPresentReason(notPresent!), /has 1 pages being moved or poisoned/);
      }
    });

    test('whose entry has a bit that no swap entry has is refused', () => {
      const { process, swap, pages } = madePages(release);
      process.swapOut(BASE, 8, 0, 0x20n);
      swap.use(8);
      assert.equal(pages().notPresent?.why, 'its entry in the page table is damaged');
    });

    test('that PROT_NONE took away is in memory', () => {
      const { process, pages } = madePages(release);
      const { kernel } = process;
      const pfn = kernel.frame(1);
      const page = kernel.pfnToPage(pfn);
      kernel.set('page', page, 'mapping', 0x1001n);
      kernel.set('page', page, '_refcount', 1);
      process.map(BASE, pfn, 'taken');
      const { runs, resident, swapped } = pages();
      assert.deepEqual([runs.pages, resident, swapped], [1, 1, 0]);
    });
  });
}
