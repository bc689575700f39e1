import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { groupProcesses, tieOf } from '../../src/capture/groups.ts';
import type { SharingEdge } from '../../src/model/group.ts';
import type { Process } from '../../src/model/process.ts';
import { areaOf, memoryOf, processOf } from '../criu/processes.ts';

function pidsOf(processes: readonly Process[], edges: readonly SharingEdge[] = []): number[][] {
  return groupProcesses(processes, edges).groups.map((group) => group.map(({ pid }) => pid));
}

describe('processes', () => {
  it('that share nothing are restored each for itself', () => {
    assert.deepEqual(pidsOf([processOf(10), processOf(20)]), [[10], [20]]);
  });

  it('are restored together with their parents, in the given order', () => {
    const family = [processOf(10), processOf(20), processOf(11, { ppid: 10 }), processOf(12, { ppid: 11 })];
    assert.deepEqual(pidsOf(family), [[10, 11, 12], [20]]);
  });

  it('of one session or one process group stay together', () => {
    assert.deepEqual(pidsOf([processOf(10, { sid: 5 }), processOf(11, { sid: 5 }), processOf(12)]), [
      [10, 11],
      [12],
    ]);
    assert.deepEqual(pidsOf([processOf(10, { pgid: 5 }), processOf(11, { pgid: 5 })]), [[10, 11]]);
  });

  it('that share memory or files stay together', () => {
    const shared = [areaOf(0x10000, 1, { kind: 'shared-memory', shmid: 3 })];
    const [a, b] = [10, 11].map((pid) => processOf(pid, { memory: memoryOf(shared, { id: pid }) }));
    assert.ok(a !== undefined && b !== undefined);
    assert.deepEqual(pidsOf([a, b, processOf(12)]), [[10, 11], [12]]);
    const pipe = { pids: [10, 12], why: 'pipe 4711' } as const;
    assert.deepEqual(pidsOf([processOf(10), processOf(11), processOf(12)], [pipe]), [[10, 12], [11]]);
  });

  it('are not tied by what belongs to a process that nobody asked for', () => {
    const edge = { pids: [10, 999], why: 'pipe 1' } as const;
    assert.deepEqual(pidsOf([processOf(10)], [edge]), [[10]]);
  });

  it('are told what ties each of them to the other', () => {
    const { ties } = groupProcesses([processOf(10, { sid: 5 }), processOf(11, { ppid: 10, sid: 5 })], []);
    const of = (pid: number) => ties.get(pid)?.map((edge) => tieOf(pid, edge));
    assert.deepEqual(of(10), [
      { with: 11, why: 'its child' },
      { with: 11, why: 'the same session' },
    ]);
    assert.deepEqual(of(11), [
      { with: 10, why: 'its parent' },
      { with: 10, why: 'the same session' },
    ]);
    assert.deepEqual(tieOf(1, { pids: [1, 2], why: 'shares memory with' }), {
      with: 2,
      why: 'shared memory',
    });
    assert.deepEqual(tieOf(2, { pids: [1, 2], why: 'a unix socket' }), { with: 1, why: 'a unix socket' });
  });
});
