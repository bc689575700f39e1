import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { privatePages } from '../../src/capture/pages.ts';
import { PageDescriptors } from '../../src/linux/readers/page-owner.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';
import { MadeProcess } from '../vmcore/made-process.ts';

const BASE = 0x7f00_0000_0000;

for (const release of releases) {
  suite(`private memory of ${release}`, () => {
    test('that is in swap is counted and not read, as the first of the swap areas has it', () => {
      const process = new MadeProcess(new MadeKernel(release), [{ start: BASE, pages: 16 }]);
      const { kernel, mm } = process;
      process.swapOut(BASE + 3 * PAGE_SIZE);
      process.swapOut(BASE + 4 * PAGE_SIZE);
      const shape = { start: BASE, end: BASE + 16 * PAGE_SIZE, pgoff: 0, ofFile: false };
      const { notPresent, runs } = privatePages(kernel, mm.pgd, shape, new PageDescriptors(kernel));
      assert.deepEqual(notPresent, { pages: 2, first: BASE + 3 * PAGE_SIZE, type: 0 });
      assert.equal(runs.pages, 0);
    });
  });
}
