import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isBeforeExec, mayTakeAway } from '../../../src/capture/calls/exec.ts';
import { forEachTask } from '../../../src/linux/pid.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { signalStruct } from '../../../src/linux/signal.ts';
import { openFixture, openPatched, releases, word } from '../../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`execve in ${release}`, () => {
    const kernel = openFixture(release);
    const task = [...forEachTask(kernel)]
      .map((address) => taskAt(kernel, address))
      .find(({ robust_list }) => robust_list !== 0n);
    assert.ok(task);
    const at = (address: bigint, value: bigint) => ({
      physical: kernel.memory.translate(address),
      bytes: word(value),
    });
    const patched = (address: bigint, value: bigint): boolean => {
      const other = openPatched(release, [at(address, value)]);
      return isBeforeExec(other, taskAt(other, task.address));
    };
    const { offsetBytes = 0 } = kernel.layouts.member('task_struct', 'robust_list') ?? {};

    test('can be made again while the thread has its list of robust futexes', () => {
      assert.ok(isBeforeExec(kernel, task));
    });

    test('cannot once that is gone, which is before the memory is', () => {
      assert.ok(!patched(task.address + BigInt(offsetBytes), 0n));
    });

    test('can while its parent waits in vfork, which goes on before the memory is gone', () => {
      const offset = kernel.layouts.member('task_struct', 'vfork_done')?.offsetBytes ?? assert.fail();
      const other = openPatched(release, [
        at(task.address + BigInt(offsetBytes), 0n),
        at(task.address + BigInt(offset), task.stack + 0x3000n),
      ]);
      assert.ok(isBeforeExec(other, taskAt(other, task.address)));
    });

    test('cannot while it ends the other threads', () => {
      const offset = kernel.bind(signalStruct).offsetOf('group_exec_task');
      assert.ok(!patched(task.signal + BigInt(offset), task.address));
    });
  });
}

test('execve takes things away before it replaces the memory', () => {
  const stackOf = (name: string) => [
    { ip: 1n, sp: 1n, isInterrupted: false, function: name, calls: 'schedule' },
  ];
  assert.ok(!mayTakeAway({ frames: stackOf('do_open_execat'), end: 'user', why: undefined }));
  assert.ok(mayTakeAway({ frames: stackOf('begin_new_exec'), end: 'user', why: undefined }));
  assert.ok(mayTakeAway({ frames: stackOf('do_open_execat'), end: 'unknown', why: 'a page is missing' }));
});
