import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { exitOf } from '../../../src/capture/endings/ending.ts';
import { panickedTasks } from '../../../src/capture/panicked.ts';
import type { TaskGroup } from '../../../src/capture/tasks.ts';
import { cpuNoteOf } from '../../../src/linux/current.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { BEGINNING, kernelStack } from '../../../src/linux/readers/kernel-stack.ts';
import { cpuOnStack, runningTasks, switchOf } from '../../../src/linux/readers/running-tasks.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { CpuNote } from '../../../src/vmcore/elf-notes.ts';
import { Changing } from '../../capture/arch/changing.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../../vmcore/fixtures.ts';

const EXIT_GROUP = 231;
const ENOSYS = -38;

for (const release of releases) {
  suite(`the task that a CPU was executing, ${release},`, () => {
    test('is not one that another CPU computes for, whatever a run queue says', () => {
      const changing = new Changing(release);
      changing.computes();
      changing.otherIsOn(changing.idle);
      changing.setQueue(0, changing.task);
      const { cpuOf, switching, unknown } = changing.running;
      assert.equal(switching.size, 0);
      assert.deepEqual([cpuOf.get(changing.idle), cpuOf.get(changing.task), unknown], [0, 1, []]);
      assert.equal(changing.placeOf(changing.task).onCpu?.cpu, 1);
    });

    test('is not one that another CPU is in the kernel with, whatever it has as its current one', () => {
      const changing = new Changing(release);
      const other = changing.newTask(4713, 0);
      changing.setCurrent(0, other);
      changing.setQueue(0, other);
      changing.computes();
      changing.otherIsOn(other);
      changing.setCurrent(1, other);
      const { cpuOf, switching } = changing.running;
      assert.deepEqual([cpuOf.get(other), cpuOf.get(changing.task), switching.size], [0, 1, 0]);
      assert.equal(changing.placeOf(changing.task).onCpu?.cpu, 1);
    });

    test('is nobody if both of its witnesses name one of another CPU', () => {
      const changing = new Changing(release);
      changing.setCurrent(0, changing.task);
      changing.setQueue(0, changing.task);
      assert.deepEqual(changing.running.unknown, [0]);
    });

    test('is nobody if the only one that is left has another stack: it may have been changing', () => {
      for (const isCurrentLeft of [true, false]) {
        const changing = new Changing(release);
        if (isCurrentLeft) changing.setQueue(1, 0n);
        else changing.setCurrent(1, 0n);
        const [named, other] = isCurrentLeft
          ? [changing.task, changing.next]
          : [changing.next, changing.task];
        changing.isOn(named);
        if (!isCurrentLeft) changing.kernel.cpuNotes.unshift({ pid: 0, registers: {} });
        assert.deepEqual([changing.running.unknown, changing.running.cpuOf.get(named)], [[], 1]);
        changing.kernel.cpuNotes.splice(0);
        changing.otherIsOn(other);
        changing.kernel.cpuNotes.unshift({ pid: 0, registers: {} });
        assert.deepEqual([changing.running.unknown, changing.running.cpuOf.has(named)], [[1], false]);
      }
    });

    test('is the only one that is left if the CPU was on its stack for interrupts', () => {
      const changing = new Changing(release);
      changing.setQueue(1, 0n);
      const { kernel, task } = changing;
      const sp = changing.nextView.stack + 0x3000n;
      changing.note({ sp });
      assert.deepEqual(changing.running.unknown, [1]);
      const hot = kernel.symbolMaybe('pcpu_hot');
      if (hot === undefined) kernel.allocatePerCpu('hardirq_stack_ptr', 'pt_regs');
      const variable = hot ?? kernel.symbol('hardirq_stack_ptr');
      const offset = hot === undefined ? 0n : kernel.memberAddress('pcpu_hot', 0n, 'hardirq_stack_ptr');
      kernel.write(kernel.perCpu(variable, 1) + offset, word(sp + 0x100n));
      assert.deepEqual([changing.running.unknown, changing.running.cpuOf.get(task)], [[], 1]);
    });

    test('is what counts of a task, before what another CPU names', () => {
      const changing = new Changing(release);
      changing.hasChanged('memcpy');
      const running = {
        cpuOf: new Map([[changing.next, 1]]),
        switching: new Map([[changing.next, { cpu: 0, part: 'saved' } as const]]),
        unknown: [],
      };
      assert.equal(switchOf(changing.kernel, running, changing.nextView), undefined);
    });

    test('has the note of the one before it, but not that of one that is on another CPU', () => {
      const changing = new Changing(release);
      const { kernel } = changing;
      assert.equal(cpuNoteOf(kernel, 1, 4712)?.pid, 4711);
      changing.saysItIsOn(changing.task, 0);
      assert.equal(cpuNoteOf(kernel, 1, 4712), undefined);
    });

    test('uses its stack once it has taken its registers up', () => {
      const changing = new Changing(release);
      const cpus = (): unknown[] =>
        [changing.taskView, changing.nextView].map((task) =>
          cpuOnStack(changing.kernel, changing.running, task),
        );
      assert.deepEqual(cpus(), [1, undefined]);
      changing.isOn(changing.next, '__switch_to');
      assert.deepEqual(cpus(), [undefined, undefined]);
      changing.hasChanged('__switch_to');
      assert.deepEqual(cpus(), [undefined, undefined]);
      changing.hasChanged('finish_task_switch');
      assert.deepEqual(cpus(), [undefined, 1]);
    });

    test('and the one that it changes to or from may have killed the kernel', () => {
      const changing = new Changing(release);
      const { kernel, task, next } = changing;
      const groups = [task, next].map((address) => ({ threads: [taskAt(kernel, address)] }));
      const panicked = (): Set<bigint> => new Set(panickedTasks(kernel, changing.running, groups));
      kernel.variable('panic_cpu', 1n);
      assert.deepEqual(panicked(), new Set([task, next]));
      assert.deepEqual(new Set(panickedTasks(kernel, changing.running, [])), new Set([task, next]));
      changing.isOn(next, '__switch_to');
      assert.deepEqual(panicked(), new Set([task, next]));
      changing.hasChanged('finish_task_switch');
      assert.deepEqual(panicked(), new Set([task, next]));
      kernel.variable('panic_cpu', 0n);
      assert.deepEqual(panicked(), new Set([changing.idle]));
      kernel.variable('panic_cpu', 2n);
      assert.deepEqual(panicked(), new Set([changing.idle, task, next]));
    });

    test('leaves the one before it in the call that it was in', () => {
      const changing = new Changing(release);
      changing.hasChanged('finish_task_switch');
      const { kernel, userRegisters } = changing;
      const register = (name: string, value: number): void =>
        kernel.set('pt_regs', userRegisters, name, value);
      register('orig_ax', EXIT_GROUP);
      register('ax', ENOSYS);
      register('di', 7);
      for (const name of ['cx', 'ip']) register(name, 0x40_1000);
      for (const name of ['r11', 'flags']) register(name, 0x202);
      const threads = [changing.taskView];
      const signal = { flags: 0, group_exec_task: 0n, sharedPendingSignal: 0n };
      const group = { leader: changing.taskView, threads, allThreads: threads, signal };
      const exit = () => exitOf(kernel, group as unknown as TaskGroup, changing.running);
      assert.deepEqual(exit(), { was: 'was about to end', exitCode: 7 << 8 });
      changing.hasChanged('memcpy');
      assert.equal(exit(), undefined);
    });
  });

  suite(`the task that a kernel thread came after, ${release},`, () => {
    const whole = openFixture(release);
    const sleeper = taskAt(whole, findTaskByPid(whole, truthOf(release).program.pid) ?? 0n);
    const thread = taskAt(whole, findTaskByPid(whole, 2) ?? 0n);
    const { frames } = kernelStack(whole, thread, undefined);
    const [cpu = -1] = [...runningTasks(whole).cpuOf]
      .filter(([task]) => taskAt(whole, task).pid === 0)
      .map(([, its]) => its);
    const member = (name: string): number =>
      whole.memory.translate(
        sleeper.address + BigInt(whole.layouts.member('task_struct', name)?.offsetBytes ?? assert.fail(name)),
      );

    /** What the sleeper was to the CPU, if it says that it was on it, and the thread was, at a place. */
    function partAt({ ip, sp }: { readonly ip: bigint; readonly sp: bigint }) {
      const isInThread = whole.layouts.member('task_struct', 'thread_info.cpu') !== undefined;
      const kernel = openPatched(release, [
        { physical: member('on_cpu'), bytes: word(1n).subarray(0, 4) },
        {
          physical: member(isInThread ? 'thread_info.cpu' : 'cpu'),
          bytes: word(BigInt(cpu)).subarray(0, 4),
        },
      ]);
      const notes: CpuNote[] = [{ pid: 2, registers: { ip, sp, bp: 0n, cs: 0x10n } }];
      Object.defineProperty(kernel, 'cpuNotes', { value: notes });
      const { cpuOf, ...others } = runningTasks(kernel);
      const elsewhere = [...cpuOf].filter(([, its]) => its !== cpu);
      const running = { ...others, cpuOf: new Map([...elsewhere, [thread.address, cpu]]) };
      const found = switchOf(kernel, running, taskAt(kernel, sleeper.address));
      kernel.close();
      return found?.part;
    }

    test('is one that has its registers in memory while the thread is in the scheduler', () => {
      assert.equal(frames[0]?.function, '__schedule');
      assert.equal(partAt(frames[0] ?? assert.fail()), 'saved');
    });

    test('is nobody while it does something else, though it has where it began on its stack', () => {
      const own = frames.find((frame) => frame.function === 'kthreadd') ?? assert.fail();
      assert.ok(frames.some((frame) => BEGINNING.has(frame.function)));
      assert.equal(partAt(own), undefined);
    });

    test('is one where the thread has just begun', () => {
      const ip = whole.symbolMaybe('ret_from_fork_asm') ?? whole.symbol('ret_from_fork');
      assert.equal(partAt({ ip, sp: thread.thread.sp }), 'saved');
    });
  });
}
