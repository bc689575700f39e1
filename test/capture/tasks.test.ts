import assert from 'node:assert/strict';
import { test } from 'node:test';
import { selectProcesses } from '../../src/capture/tasks.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { listTasks } from '../../src/linux/readers/task-list.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

for (const release of releases) {
  test(`a process of ${release} that cannot be read is refused once, though it is wanted and a child of another`, () => {
    const whole = openFixture(release);
    const { kinds } = truthOf(release);
    const child = findTaskByPid(whole, kinds.stopped) ?? assert.fail();
    const signal = child + BigInt(whole.layouts.member('task_struct', 'signal')?.offsetBytes ?? 0);
    const kernel = openPatched(release, [{ physical: whole.memory.translate(signal), bytes: word(8n) }]);
    const { refused, groups } = selectProcesses(
      kernel,
      listTasks(kernel),
      [kinds.stopped, kinds.pid, kinds.stopped],
      true,
    );
    assert.ok(groups.some(({ pid }) => pid === kinds.pid));
    assert.deepEqual(
      refused.map(({ pid, ppid }) => ({ pid, ppid })),
      [{ pid: kinds.stopped, ppid: kinds.pid }],
    );
    assert.notEqual(refused[0]?.comm, '');
  });
}
