import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mtForEach } from '../../src/linux/maple-tree.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { forEachVma } from '../../src/linux/readers/vma.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, releases, truthOf } from '../vmcore/fixtures.ts';
import { count, wordPatcher } from './walks.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const { program } = truthOf(release);
  const mmOf = (from: Kernel) =>
    from.bind(mmStruct).at(taskAt(from, findTaskByPid(from, program.pid) ?? 0n).mm);
  const withWord = wordPatcher(release, kernel);

  describe(`maple trees of ${release}`, () => {
    const mm = mmOf(kernel);

    it('have the 300 areas of a process that has them, at three levels', () => {
      const entries = [...mtForEach(kernel, mm.mm_mt)];
      assert.equal(entries.length, mm.map_count);
      assert.ok(entries.length > 300);
      for (const [i, { first, last }] of entries.entries()) {
        assert.ok(last > first);
        assert.ok(first > (entries[i - 1]?.last ?? -1));
      }
    });

    it('are refused where a node, a pivot or an area is not in its place', () => {
      const root =
        kernel.memory.pointer(
          mm.mm_mt + BigInt(kernel.layouts.member('maple_tree', 'ma_root')?.offsetBytes ?? 0),
        ) & ~255n;
      const pivot = root + BigInt(kernel.layouts.member('maple_arange_64', 'pivot')?.offsetBytes ?? 0);
      const slot = root + BigInt(kernel.layouts.member('maple_arange_64', 'slot')?.offsetBytes ?? 0);
      const child = kernel.memory.pointer(slot);
      const walk = (damaged: Kernel): number => count(mtForEach(damaged, mm.mm_mt));
      assert.throws(() => walk(withWord(root, 0n)), /does not belong there/);
      assert.throws(() => walk(withWord(pivot + 8n, 1n)), /out of order/);
      assert.throws(() => walk(withWord(slot + 8n, child)), ContainerError);
      assert.throws(() => walk(withWord(slot, root | 0x1en)), ContainerError);
      assert.throws(() => walk(withWord(slot, child | 0x78n)), /is of type 15/);
      const [area] = [...forEachVma(kernel, mm)];
      assert.throws(
        () => count(forEachVma(withWord(area?.address ?? 0n, 4096n), mmOf(kernel))),
        ContainerError,
      );
    });
  });
}
