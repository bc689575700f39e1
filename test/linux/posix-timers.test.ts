import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { capturePosixTimers, realTimeLeft, threadOfClock } from '../../src/capture/timers.ts';
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
  it('that is about to go off is not one that is disarmed', () => {
    assert.equal(cpuTimeLeft(0n, 900n, 0n), 0n);
    assert.equal(cpuTimeLeft(1000n, 900n, 0n), 100n);
    assert.equal(cpuTimeLeft(1000n, 1000n, 0n), 1n);
    assert.equal(cpuTimeLeft(1000n, 1030n, 100n), 70n);
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
      function captured(clock: number, task: bigint) {
        const signal = kernel.allocate('signal_struct');
        const timer = kernel.allocate('k_itimer');
        const members = { it_clock: clock, 'it.cpu.pid': numberOf(task), 'it.cpu.node.expires': 1000 };
        for (const [name, value] of Object.entries(members)) kernel.set('k_itimer', timer, name, value);
        const [head, node] = [
          kernel.memberAddress('signal_struct', signal, 'posix_timers'),
          kernel.memberAddress('k_itimer', timer, 'list'),
        ];
        kernel.write(head, words(node, node));
        kernel.write(node, release === 'debian13' ? words(0n, head) : words(head, head));
        const { timers, problems } = capturePosixTimers(
          kernel,
          kernel.bind(signalStruct).at(signal),
          tasks,
          clocks,
        );
        const [{ clock: made, remainingNanoseconds } = assert.fail()] = timers;
        return { problems, made, left: remainingNanoseconds };
      }

      test('of one thread is made by its number, and has what is left of that thread', () => {
        const own = (~WORKER << 3) | 6;
        for (const clock of [own, -2])
          assert.deepEqual(captured(clock, worker), { problems: [], made: own, left: 700n });
        assert.equal(threadOfClock(own), WORKER);
        assert.equal(threadOfClock(2), undefined);
      });

      test('of the process counts all of its threads', () => {
        for (const clock of [(~LEADER << 3) | 2, -6]) {
          const { problems, made, left } = captured(clock, processes.taskOf(LEADER));
          assert.deepEqual({ problems, made, left }, { problems: [], made: 2, left: 1n });
        }
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
