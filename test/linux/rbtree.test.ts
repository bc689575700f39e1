import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fileStruct } from '../../src/linux/fs.ts';
import { mmStruct, vmAreaStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid, forEachTask } from '../../src/linux/pid.ts';
import { rbTreeForEach, rbTreeForEachEntry } from '../../src/linux/rbtree.ts';
import { forEachVma } from '../../src/linux/readers/vma.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const { kinds } = truthOf(release);
  const withWords = (...words: readonly (readonly [address: bigint, value: bigint])[]): Kernel =>
    openPatched(
      release,
      words.map(([address, value]) => ({ physical: kernel.memory.translate(address), bytes: word(value) })),
    );

  describe(`red-black trees of ${release}`, () => {
    const mm = kernel.bind(mmStruct).at(taskAt(kernel, findTaskByPid(kernel, kinds.pid) ?? 0n).mm);
    const shared = kernel.bind(fileStruct).at(mm.exe_file).f_mapping;
    const root = shared + BigInt(kernel.layouts.member('address_space', 'i_mmap')?.offsetBytes ?? 0);

    it('have every area in which a program that several processes run is mapped', () => {
      const areas = [...rbTreeForEachEntry(kernel, root, kernel.bind(vmAreaStruct), 'shared.rb')].map(
        ({ address }) => address,
      );
      const expected: bigint[] = [];
      for (const address of forEachTask(kernel)) {
        const task = taskAt(kernel, address);
        if (task.mm === 0n) continue;
        for (const area of forEachVma(kernel, kernel.bind(mmStruct).at(task.mm))) {
          if (area.vm_file !== 0n && kernel.bind(fileStruct).at(area.vm_file).f_mapping === shared)
            expected.push(area.address);
        }
      }
      assert.ok(expected.length >= 10);
      assert.deepEqual(areas.sort(), expected.sort());
    });

    it('are refused where a parent is not the one that was come from, or the walk does not end', () => {
      const nodes = [...rbTreeForEach(kernel, root)];
      const [leaf = 0n, other = 0n] = nodes;
      const walk = (damaged: Kernel): number => [...rbTreeForEach(damaged, root)].length;
      assert.throws(() => walk(withWords([leaf, other + 64n])), /the parent of 0x[0-9a-f]+ is not 0x/);
      assert.throws(() => walk(withWords([leaf + 8n, kernel.memory.pointer(root)])), ContainerError);
      assert.throws(() => [...rbTreeForEach(kernel, root, 3)], /does not end within 3 elements/);
    });
  });
}
