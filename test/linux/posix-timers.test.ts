import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { capturePosixTimers, realTimeLeft, threadOfClock, timerProblems } from '../../src/capture/timers.ts';
import { cpuTimeLeft, timeLeft } from '../../src/linux/posix-timers.ts';
import { taskStruct } from '../../src/linux/sched.ts';
import { signalStruct } from '../../src/linux/signal.ts';
import { MadeProcesses } from '../capture/made-processes.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

describe('a timer that is not queued', () => {
  const [SIGEV_SIGNAL, SIGEV_NONE] = [0, 1];
  const idle = (left: bigint) => ({ active: false, remaining: 0n, left });

  it('goes on with its next period if its signal was not taken yet', () => {
    assert.equal(timeLeft(idle(-250n), SIGEV_SIGNAL, 100n), 50n);
    assert.equal(realTimeLeft(idle(-250n), 100n), 50n);
  });

  it('has ended if it has no period', () => {
    assert.equal(timeLeft(idle(-250n), SIGEV_SIGNAL, 0n), 0n);
    assert.equal(realTimeLeft(idle(-250n), 0n), 0n);
  });

  it('runs all the same if it has no signal', () => {
    assert.equal(timeLeft(idle(300n), SIGEV_NONE, 0n), 300n);
    assert.equal(timeLeft(idle(-300n), SIGEV_NONE, 0n), 0n);
    assert.equal(timeLeft(idle(-250n), SIGEV_NONE, 100n), 50n);
  });

  it('and one that is queued has what is left', () => {
    assert.equal(timeLeft({ active: true, remaining: 7n, left: 7n }, SIGEV_SIGNAL, 100n), 7n);
    assert.equal(realTimeLeft({ active: true, remaining: 7n, left: 7n }, 100n), 7n);
  });
});

describe('a timer on CPU time', () => {
  const left = (expires: bigint, interval: bigint, isQueued: boolean) =>
    cpuTimeLeft({ expires, interval, isQueued }, 1030n);

  it('that is about to go off is not one that is disarmed', () => {
    assert.equal(left(0n, 0n, false), 0n);
    assert.equal(left(0n, 100n, false), 0n);
    assert.equal(left(1130n, 0n, true), 100n);
    assert.equal(left(1030n, 0n, true), 1n);
    assert.equal(left(1130n, 50n, true), 100n);
  });

  it('that is periodic has its signal still to come while it is in its queue, and goes on from there if not', () => {
    assert.equal(left(1000n, 100n, true), 1n);
    assert.equal(left(1000n, 100n, false), 70n);
  });

  for (const release of releases) {
    describe(`in ${release}`, () => {
      const [LEADER, WORKER, OTHER] = [330, 331, 400];
      const kernel = new MadeKernel(release);
      const processes = new MadeProcesses(kernel, [LEADER, OTHER]);
      const worker = processes.addThread(LEADER, WORKER);
      kernel.set('task_struct', worker, 'tgid', LEADER);
      kernel.set('task_struct', processes.taskOf(LEADER), 'se.sum_exec_runtime', 5000);
      kernel.set('task_struct', worker, 'se.sum_exec_runtime', 300);
      const tasks = [processes.taskOf(LEADER), worker].map((at) => kernel.bind(taskStruct).at(at));
      const numberOf = (task: bigint): bigint => kernel.bind(taskStruct).at(task).thread_pid;
      const clocks = { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n };

      /** What is made of a timer on a clock that the kernel keeps as `clock`, of the CPU time of `task`. */
      function captured(
        clock: number,
        task: bigint,
        more: Readonly<Record<string, bigint | number>> = { 'it.cpu.head': 1n },
        threads = tasks,
      ) {
        const signal = kernel.allocate('signal_struct');
        const timer = kernel.allocate('k_itimer');
        const cpu = { 'it.cpu.pid': numberOf(task), 'it.cpu.node.expires': 1000 };
        for (const [name, value] of Object.entries({ it_clock: clock, ...cpu, ...more }))
          kernel.set('k_itimer', timer, name, value);
        const [head, node] = [
          kernel.memberAddress('signal_struct', signal, 'posix_timers'),
          kernel.memberAddress('k_itimer', timer, 'list'),
        ];
        kernel.write(head, words(node, node));
        kernel.write(node, release === 'debian13' ? words(0n, head) : words(head, head));
        const { timers, problems } = capturePosixTimers(
          kernel,
          kernel.bind(signalStruct).at(signal),
          threads,
          clocks,
        );
        const [{ clock: made, remainingNanoseconds, notifyThread } = assert.fail()] = timers;
        const none = { intervalMicroseconds: 0, remainingMicroseconds: 0 };
        const intervalTimers = { real: none, virtual: none, prof: none };
        problems.push(...timerProblems(clocks, threads, { intervalTimers, posixTimers: timers }));
        return { problems, made, left: remainingNanoseconds, notifyThread };
      }

      test('of one thread is made by its number, and has what is left of that thread', () => {
        const own = (~WORKER << 3) | 6;
        for (const clock of [own, -2])
          assert.deepEqual(captured(clock, worker), {
            ...{ problems: [], made: own, left: 700n, notifyThread: undefined },
          });
        assert.equal(threadOfClock(own), WORKER);
        assert.equal(threadOfClock(2), undefined);
      });

      test('of the process counts all of its threads', () => {
        for (const clock of [(~LEADER << 3) | 2, -6]) {
          const { problems, made, left } = captured(clock, processes.taskOf(LEADER));
          assert.deepEqual({ problems, made, left }, { problems: [], made: 2, left: 1n });
        }
      });

      test('that is periodic is in its queue, or just going off, until its signal is sent', () => {
        const expired = { it_interval: 100, 'it.cpu.node.expires': 250 };
        const leftOf = (more: typeof expired & Readonly<Record<string, bigint | number>>) =>
          captured(-2, worker, more).left;
        assert.equal(leftOf({ ...expired, 'it.cpu.head': 1n }), 1n);
        assert.equal(leftOf({ ...expired, 'it.cpu.firing': 1 }), 1n);
        assert.equal(leftOf(expired), 50n);
      });

      test('that is disarmed has nothing left, whatever interval the kernel keeps of it', () => {
        const disarmed = { it_interval: 1_000_000_000, 'it.cpu.node.expires': 0 };
        assert.deepEqual(captured(-2, worker, disarmed).left, 0n);
      });

      test('of a thread that has ended is not one of the thread that has its number now', () => {
        const ended = kernel.allocate('pid');
        kernel.set('pid', ended, 'numbers[0].nr', WORKER);
        const own = (~WORKER << 3) | 6;
        assert.deepEqual(captured(own, worker, { 'it.cpu.pid': ended }).problems, [
          `has a timer on clock ${own}`,
        ]);
        const SIGEV_THREAD_ID = 4;
        const notifying = { it_sigev_notify: SIGEV_THREAD_ID, it_pid: ended };
        assert.deepEqual(captured(own, worker, notifying).problems, [
          'has a timer that notifies a thread which has ended',
        ]);
        const found = captured(own, worker, { ...notifying, it_pid: numberOf(worker) });
        assert.deepEqual([found.problems, found.notifyThread], [[], WORKER]);
      });

      test('of a worker of an io_uring, or that notifies one, is refused: others take its place', () => {
        const ioWorker = processes.addThread(LEADER, WORKER + 1);
        // PF_IO_WORKER
        kernel.set('task_struct', ioWorker, 'flags', 0x10);
        const found = (clock: number, task: bigint, more?: Readonly<Record<string, bigint | number>>) =>
          captured(clock, task, more, [...tasks, kernel.bind(taskStruct).at(ioWorker)]).problems;
        const refused = ['has a timer for a worker of an io_uring'];
        assert.deepEqual(found(-2, ioWorker), refused);
        const notifying = { it_sigev_notify: 4, it_pid: numberOf(ioWorker) };
        assert.deepEqual(found(-2, worker, notifying), refused);
        assert.deepEqual(found(-2, worker), []);
      });

      test('of another process, or of a kind that nobody else counts, is refused', () => {
        for (const [clock, task] of [
          [(~OTHER << 3) | 6, processes.taskOf(OTHER)],
          [(~OTHER << 3) | 2, processes.taskOf(OTHER)],
          [(~WORKER << 3) | 5, worker],
        ] as const)
          assert.deepEqual(captured(clock, task).problems, [`has a timer on clock ${clock}`]);
      });
    });
  }
});

const words = (...values: readonly bigint[]): Buffer => {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(value, 8 * i);
  return bytes;
};
