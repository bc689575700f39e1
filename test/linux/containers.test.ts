import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hlistForEach } from '../../src/linux/hlist.ts';
import { idrFind, idrForEach } from '../../src/linux/idr.ts';
import { listForEach, listForEachEntry } from '../../src/linux/list.ts';
import { mtForEach } from '../../src/linux/maple-tree.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import {
  findPid,
  findTaskByPid,
  forEachPid,
  forEachTask,
  forEachThread,
  pidNr,
  pidTask,
} from '../../src/linux/pid.ts';
import { forEachVma } from '../../src/linux/readers/vma.ts';
import { taskAt, taskStruct } from '../../src/linux/sched.ts';
import { xaForEach, xaLoad } from '../../src/linux/xarray.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

/** Runs a walk to its end. */
function count(walk: Iterable<unknown>): number {
  let total = 0;
  for (const _ of walk) total++;
  return total;
}

for (const release of releases) {
  const kernel = openFixture(release);
  const { processes, program } = truthOf(release);
  const pids = processes.map(({ pid }) => pid).sort((a, b) => a - b);
  const tasks =
    taskAt(kernel, kernel.symbol('init_task')).address + BigInt(kernel.bind(taskStruct).offsetOf('children'));
  const listOfTasks =
    kernel.symbol('init_task') + BigInt(kernel.layouts.member('task_struct', 'tasks')?.offsetBytes ?? 0);
  const mmOf = (from: Kernel) =>
    from.bind(mmStruct).at(taskAt(from, findTaskByPid(from, program.pid) ?? 0n).mm);
  /** The kernel after 8 bytes at a kernel address became others. */
  const withWord = (address: bigint, value: bigint): Kernel =>
    openPatched(release, [{ physical: kernel.memory.translate(address), bytes: word(value) }]);

  describe(`lists of ${release}`, () => {
    it('have every process', () => {
      const found = [...forEachTask(kernel)].map((task) => taskAt(kernel, task).pid);
      assert.ok(pids.every((pid) => found.includes(pid)));
    });

    it('have every thread of a process', () => {
      assert.equal(count(forEachThread(kernel, findTaskByPid(kernel, program.pid) ?? 0n)), 3);
    });

    it('have the children of swapper: init and kthreadd', () => {
      const children = [...listForEachEntry(kernel, tasks, kernel.bind(taskStruct), 'sibling')];
      assert.deepEqual(
        children.map(({ pid }) => pid),
        [1, 2],
      );
    });

    it('are refused where they are damaged: a loop, a wild pointer, a node of another list', () => {
      const [first = 0n, second = 0n, third = 0n] = [...listForEach(kernel, listOfTasks)];
      assert.throws(() => count(listForEach(withWord(third, second), listOfTasks)), ContainerError);
      assert.throws(
        () => count(listForEach(withWord(second, 0xdead_0000_0000_0100n), listOfTasks)),
        /list at 0x[0-9a-f]+ leads to 0xdead000000000100/,
      );
      assert.throws(
        () => count(listForEach(withWord(first, tasks), listOfTasks)),
        /is damaged: 0x[0-9a-f]+ follows/,
      );
    });

    it('are read while another CPU takes an element out of them', () => {
      const [, second = 0n, third = 0n, fourth = 0n] = [...listForEach(kernel, listOfTasks)];
      // __list_del sets the next element's back pointer first.
      const during = withWord(fourth + 8n, second);
      assert.equal(count(listForEach(during, listOfTasks)), count(listForEach(kernel, listOfTasks)));
      assert.equal(kernel.memory.pointer(third), fourth);
    });

    it('are not followed for ever', () => {
      assert.throws(() => count(listForEach(kernel, listOfTasks, 5)), /does not end within 5 elements/);
    });
  });

  describe(`PIDs of ${release}`, () => {
    it('lead to their tasks, and tasks to them', () => {
      const found: number[] = [];
      for (const { nr, pid } of forEachPid(kernel)) {
        assert.equal(pidNr(kernel, pid), nr);
        const task = pidTask(kernel, pid, 'PIDTYPE_PID');
        if (task === undefined) continue;
        assert.equal(taskAt(kernel, task).pid, nr);
        assert.equal(taskAt(kernel, task).thread_pid, pid);
        found.push(nr);
      }
      assert.ok(pids.every((pid) => found.includes(pid)));
    });

    it('that are not in use lead nowhere', () => {
      assert.equal(findPid(kernel, 3000), undefined);
      assert.equal(findTaskByPid(kernel, 0x3fffff), undefined);
    });

    it('are refused if the task found says another number', () => {
      const task = findTaskByPid(kernel, program.pid) ?? 0n;
      const at = task + BigInt(kernel.bind(taskStruct).offsetOf('pid'));
      assert.throws(
        () => findTaskByPid(withWord(at, 7n), program.pid),
        /is found as PID \d+, but says that it is 7/,
      );
    });

    it('are linked to their tasks by an hlist whose back pointers are checked', () => {
      const pid = findPid(kernel, program.pid) ?? 0n;
      const head = pid + BigInt(kernel.layouts.member('pid', 'tasks')?.offsetBytes ?? 0);
      assert.equal(count(hlistForEach(kernel, head)), 1);
      const [node = 0n] = [...hlistForEach(kernel, head)];
      assert.throws(
        () => count(hlistForEach(withWord(node + 8n, head + 64n), head)),
        /hlist at 0x[0-9a-f]+ is damaged/,
      );
      assert.throws(() => count(hlistForEach(withWord(node, node), head)), ContainerError);
    });
  });

  describe(`xarrays of ${release}`, () => {
    const idr =
      kernel.symbol('init_pid_ns') + BigInt(kernel.layouts.member('pid_namespace', 'idr')?.offsetBytes ?? 0);

    it('give the same entries by walking and by looking up', () => {
      const entries = [...xaForEach(kernel, idr)];
      assert.ok(entries.length > 50);
      for (const { index, entry } of entries) assert.equal(xaLoad(kernel, idr, index), entry);
      assert.equal(xaLoad(kernel, idr, 1_000_000), 0n);
      assert.deepEqual(
        entries.map(({ index }) => index),
        [...idrForEach(kernel, idr)].map(({ id }) => id),
      );
      assert.equal(idrFind(kernel, idr, 1), entries[0]?.entry);
    });

    it('are refused where a node is not in its place', () => {
      const head = idr + BigInt(kernel.layouts.member('xarray', 'xa_head')?.offsetBytes ?? 0);
      const node = kernel.memory.pointer(head) & ~3n;
      assert.throws(
        () => count(xaForEach(withWord(node, kernel.memory.u64(node) ^ 3n), idr)),
        /xarray at .* is not where it belongs/,
      );
      const slot = node + BigInt(kernel.layouts.member('xa_node', 'slots')?.offsetBytes ?? 0);
      assert.throws(() => count(xaForEach(withWord(slot, node | 2n), idr)), ContainerError);
      assert.throws(
        () => count(xaForEach(withWord(head, 0xffff_0000_0000_0002n), idr)),
        /which cannot be read/,
      );
    });
  });

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
