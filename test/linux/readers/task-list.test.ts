import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { listRead } from '../../../src/linux/list.ts';
import { findTaskByPid, forEachTask } from '../../../src/linux/pid.ts';
import { listTasks } from '../../../src/linux/readers/task-list.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, word } from '../../vmcore/fixtures.ts';

function offset(kernel: Kernel, structure: string, path: string): bigint {
  return BigInt(kernel.layouts.member(structure, path)?.offsetBytes ?? 0);
}

for (const release of releases) {
  describe(`all tasks of ${release}`, () => {
    const kernel = openFixture(release);
    const all = [...forEachTask(kernel)];
    const pids = all.map((task) => taskAt(kernel, task).pid);
    const links = offset(kernel, 'task_struct', 'tasks');
    const head = kernel.symbol('init_task') + links;
    const program = all.findIndex((task) => taskAt(kernel, task).comm === 'guest-program');
    const next = (index: number) => ({
      physical: kernel.memory.translate((all[index] ?? 0n) + links),
      bytes: word(0x1234n),
    });
    const table = {
      physical: kernel.memory.translate(
        kernel.symbol('init_pid_ns') +
          offset(kernel, 'pid_namespace', 'idr') +
          offset(kernel, 'idr', 'idr_rt') +
          offset(kernel, 'xarray', 'xa_head'),
      ),
      bytes: word(0x8n),
    };

    it('are those on the list, if that is whole', () => {
      assert.deepEqual(listTasks(kernel), { tasks: all, lost: [], damage: [], isComplete: true });
    });

    it('are all found by their PIDs, if the list is cut off', () => {
      for (const patch of [{ physical: kernel.memory.translate(head), bytes: word(0n) }, next(10)]) {
        const damaged = openPatched(release, [patch]);
        const { tasks, lost, damage, isComplete } = listTasks(damaged);
        assert.deepEqual(tasks.map((task) => taskAt(damaged, task).pid).sort(), pids.toSorted());
        assert.deepEqual([lost, damage.length, isComplete], [[], 1, true]);
        damaged.close();
      }
    });

    it('are those at both ends of the list, if the table of PIDs is damaged as well', () => {
      const damaged = openPatched(release, [next(10), next(all.length - 3), table]);
      const { tasks, damage, isComplete } = listTasks(damaged);
      assert.deepEqual(tasks, [...all.slice(0, 11), ...all.slice(-2)]);
      assert.deepEqual([damage.length, isComplete], [2, false]);
      damaged.close();
    });

    it('name the one whose task_struct is gone', () => {
      const task = all[program] ?? 0n;
      const pid = pids[program] ?? 0;
      const damaged = openPatched(release, [
        { physical: kernel.memory.translate(task), bytes: Buffer.alloc(kernel.sizeOf('task_struct')) },
      ]);
      const { tasks, lost, isComplete } = listTasks(damaged);
      assert.equal(tasks.length, all.length - 1);
      assert.deepEqual([lost.map((other) => other.pid), isComplete], [[pid], true]);
      assert.equal(findTaskByPid(kernel, pid), task);
      damaged.close();
    });

    it('a list is read from both ends', () => {
      const damaged = openPatched(release, [next(5)]);
      const { nodes, damage } = listRead(damaged, head);
      assert.deepEqual(
        nodes,
        all.map((task) => task + links),
      );
      assert.match(damage ?? '', /list at 0x/);
      damaged.close();
    });
  });
}
