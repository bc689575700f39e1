import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { listForEach, listForEachEntry } from '../../src/linux/list.ts';
import { findTaskByPid, forEachTask, forEachThread } from '../../src/linux/pid.ts';
import { taskAt, taskStruct } from '../../src/linux/sched.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import { openFixture, releases, truthOf } from '../vmcore/fixtures.ts';
import { count, wordPatcher } from './walks.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const { processes, program } = truthOf(release);
  const pids = processes.map(({ pid }) => pid).sort((a, b) => a - b);
  const tasks =
    taskAt(kernel, kernel.symbol('init_task')).address + BigInt(kernel.bind(taskStruct).offsetOf('children'));
  const listOfTasks =
    kernel.symbol('init_task') + BigInt(kernel.layouts.member('task_struct', 'tasks')?.offsetBytes ?? 0);
  const withWord = wordPatcher(release, kernel);

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
}
