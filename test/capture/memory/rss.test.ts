import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkRss } from '../../../src/capture/memory/rss.ts';
import { type Findings, newFindings } from '../../../src/model/verdict.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { MadeProcess } from '../../vmcore/made-process.ts';

for (const release of releases) {
  suite(`what page tables of ${release} have, against what the kernel counted`, () => {
    /** A process of which the kernel counted 10 pages in memory and 3 in swap. */
    const found = (resident: number, swapped: number, areas?: number): Findings => {
      const kernel = new MadeKernel(release);
      if (areas !== undefined) kernel.variable('nr_swapfiles', BigInt(areas));
      const { mm } = new MadeProcess(kernel, []);
      const isPerCpu = !kernel.hasMember('mm_struct', 'rss_stat.count');
      const set = (index: number, value: number): void => {
        if (isPerCpu) kernel.set('mm_struct', mm.address, `rss_stat[${index}].count`, value);
        else kernel.set('mm_struct', mm.address, `rss_stat.count[${index}].counter`, value);
      };
      const none = kernel.physicalToVirtual(kernel.tables.allocate());
      for (let i = 0; isPerCpu && i < 4; i++)
        kernel.set('mm_struct', mm.address, `rss_stat[${i}].counters`, none);
      set(1, 10);
      set(2, 3);
      const findings = newFindings();
      const owner = { threads: [], isRunning: false, inExec: 0, findings };
      checkRss(kernel, mm, { resident, swapped }, owner);
      return findings;
    };

    test('agrees where nothing was lost', () => {
      const { reasons, checks } = found(10, 3);
      assert.deepEqual(reasons, []);
      assert.deepEqual(
        checks.map(({ result }) => result),
        ['agrees', 'agrees'],
      );
    });

    test('is a reason where entries of pages in swap are missing, as where pages are', () => {
      assert.deepEqual(found(10, 2).reasons, [
        'has 2 pages in swap in its page tables, but the kernel counted 3',
      ]);
      assert.deepEqual(found(9, 3).reasons, ['has 9 pages in its page tables, but the kernel counted 10']);
    });

    test('more in memory than was counted is believed, and told', () => {
      const { reasons, repairs } = found(11, 3);
      assert.deepEqual(reasons, []);
      assert.deepEqual(
        repairs.map(({ what }) => what),
        ['resident pages'],
      );
    });

    test('a count of pages in swap is not believed where there never was any swap', () => {
      const { reasons, repairs } = found(10, 0, 0);
      assert.deepEqual(reasons, []);
      assert.deepEqual(
        repairs.map(({ what }) => what),
        ['pages in swap'],
      );
      assert.equal(found(10, 0, 1).reasons.length, 1);
    });

    test('more in swap than was counted is a reason: its slot may be of another page', () => {
      const { reasons, repairs } = found(10, 4);
      assert.deepEqual(repairs, []);
      assert.deepEqual(reasons, ['has 4 pages in swap in its page tables, but the kernel counted 3']);
    });
  });
}
