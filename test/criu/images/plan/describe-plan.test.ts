import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeGroupPlan, describeProcessPlan } from '../../../../src/criu/images/plan/describe-plan.ts';
import type { Preparation } from '../../../../src/criu/images/plan/preparation.ts';
import type { RestorePlan } from '../../../../src/criu/images/plan/restore-plan.ts';
import { lateNothing, processOf, threadOf } from '../../processes.ts';

const nothing: RestorePlan = { ...lateNothing, pids: [7], numbers: [7] };
const unprepared: Preparation = {
  ...{ version: 2, directories: [], files: [], symlinks: [], names: [], checks: [], socketNames: [] },
};

describe('what a restore does besides CRIU is described', () => {
  it('for a group: what is made and compared, and who is made up', () => {
    assert.deepEqual(
      describeGroupPlan(nothing, unprepared, { segments: [], semaphores: [], messageQueues: [] }),
      [],
    );
    const symlinks = Array.from({ length: 7 }, (_, i) => ({
      ...{ path: `/run/${i}`, target: 'x', uid: 0, gid: 0 },
    }));
    const connections = { count: 2, addresses: ['10.0.2.15'], connects: [] };
    const plan = { ...nothing, rootPid: 4000, options: ['--file-locks'], connections };
    assert.deepEqual(
      describeGroupPlan(
        plan,
        { ...unprepared, symlinks, socketNames: [{ name: '/var/run/s', path: '/run/s' }] },
        { segments: [], semaphores: [], messageQueues: [] },
      ),
      [
        'makes links: /run/0, /run/1, /run/2, /run/3, /run/4 and 2 more',
        'looks whether the names of sockets lead to /run/s',
        'makes 2 TCP connections again, through an interface with 10.0.2.15',
        'makes a parent for all of them, 4000, which ends as soon as it runs',
        'calls criu restore with --file-locks',
      ],
    );
  });

  it('for connections: only what there is', () => {
    const one = { pid: 7, fd: 3, flags: 2, family: 2, address: '7f000001', port: 1 } as const;
    const lines = (count: number, connects: number): string[] =>
      describeGroupPlan(
        { ...nothing, connections: { count, addresses: [], connects: new Array(connects).fill(one) } },
        unprepared,
        { segments: [], semaphores: [], messageQueues: [] },
      );
    assert.deepEqual(lines(0, 2), ['begins 2 TCP connections anew']);
    assert.deepEqual(lines(1, 1), ['makes 1 TCP connection again, and begins 1 TCP connection anew']);
  });

  it('for a process: how its threads go on, and what is set of it and of no other', () => {
    const syscall = { outcome: 'restart', syscall: 'futex', reason: '' } as const;
    const threads = [7, 8].map((tid) => threadOf(tid, { syscall, pendingSignals: [new Uint8Array(128)] }));
    const plan: RestorePlan = {
      ...nothing,
      affinities: [8, 9].map((tid) => ({ tid, cpus: [0] })),
      coredumpFilters: [{ pid: 7, filter: 0x7f }],
      sockets: [7, 9].map((pid) => ({ ...{ pid, fd: 3, uid: 0, gid: 0, options: [] } })),
      memoryKeys: [{ pid: 7, keys: [1, 2], pkru: 0, areas: [{ start: 0, bytes: 4096, prot: 3, key: 1 }] }],
      signals: [
        { pid: 7, traps: [{ siginfo: '' }], stoppedChildren: [], keepsChildSignal: false, stopSignal: 19 },
      ],
    };
    assert.deepEqual(describeProcessPlan(plan, processOf(7, { threads })), [
      'futex is made again: threads 7, 8',
      'queues 2 pending signals',
      'queues 1 SIGTRAP after CRIU, which uses that signal itself',
      'stops it again, by signal 19',
      'allocates memory protection keys 1, 2, for 1 area',
      'sets the CPUs of threads: 8',
      'sets owners and options of sockets: fd 3',
      'sets its coredump_filter to 0x7f',
    ]);
  });

  it('with the timers that were armed', () => {
    const real = { intervalMicroseconds: 0, remainingMicroseconds: 5 };
    const none = { intervalMicroseconds: 0, remainingMicroseconds: 0 };
    const process = processOf(7, { threads: [], intervalTimers: { real, virtual: none, prof: none } });
    assert.deepEqual(describeProcessPlan(nothing, process), [
      'arms interval timers with what was left: real',
    ]);
  });
});
