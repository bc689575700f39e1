import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { hlistForEach } from '../../src/linux/list.ts';
import { findPid, findTaskByPid, forEachPid, longestFreeRange, pidNr, pidTask } from '../../src/linux/pid.ts';
import { taskAt, taskStruct } from '../../src/linux/sched.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import { openFixture, releases, truthOf } from '../vmcore/fixtures.ts';
import { count, wordPatcher } from './walks.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const { processes, program } = truthOf(release);
  const pids = processes.map(({ pid }) => pid).sort((a, b) => a - b);
  const withWord = wordPatcher(release, kernel);

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
}

test('the longest range of numbers that nobody has', () => {
  assert.deepEqual(longestFreeRange([]), { first: 300, last: 4194303 });
  // Kernel threads and the first daemons of a system that has just started.
  assert.deepEqual(longestFreeRange([1, 2, 61, 310, 700]), { first: 701, last: 4194303 });
  // Months later: the numbers have gone round.
  assert.deepEqual(longestFreeRange([4_000_000, 500, 4_194_303]), { first: 501, last: 3_999_999 });
  assert.deepEqual(longestFreeRange([1000, 4_100_000]), { first: 1001, last: 4_099_999 });
});
