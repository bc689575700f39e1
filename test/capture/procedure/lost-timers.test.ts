import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutTimersOf } from '../../../src/capture/procedure/lost-threads.ts';
import { taskStruct } from '../../../src/linux/sched.ts';
import { newFindings } from '../../../src/model/verdict.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const [LOST, KEPT] = [701, 700];

test('with a thread go the timers that notify it or count its CPU time, and each is named', () => {
  const kernel = new MadeKernel('debian13');
  const task = kernel.allocate('task_struct');
  kernel.set('task_struct', task, 'pid', LOST);
  const timer = (id: number, clock: number, notifyThread?: number) => ({
    ...{ id, clock, notifyThread, notify: 0, signal: 14, value: 0n, overrun: 0 },
    ...{ intervalNanoseconds: 0n, remainingNanoseconds: 5n },
  });
  const clockOf = (tid: number): number => (~tid << 3) | 6;
  const timers = [
    timer(0, 1),
    timer(1, 1, LOST),
    timer(2, clockOf(LOST)),
    timer(3, clockOf(KEPT), KEPT),
    timer(4, 2),
  ];
  const findings = newFindings();
  const kept = withoutTimersOf([kernel.bind(taskStruct).at(task)], timers, findings);
  assert.deepEqual(
    kept.map(({ id }) => id),
    [0, 3, 4],
  );
  assert.deepEqual(
    findings.unexpected.map(({ what }) => what),
    [
      'timer 1 (timer_create) is gone: it notified thread 701',
      'timer 2 (timer_create) is gone: it counted the CPU time of thread 701',
    ],
  );
});
