import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProtectionRule } from '../../../src/config/protection.ts';
import {
  type Candidate,
  explainUnmatched,
  selectByRules,
} from '../../../src/crash-world/processes/select.ts';

function candidate(pid: number, comm: string, more: Partial<Candidate> = {}): Candidate {
  const exe = `/usr/bin/${comm}`;
  return {
    pid,
    parentPid: 1,
    comm,
    exe,
    uid: 0,
    owner: 0,
    cgroup: '/init.scope',
    startTicks: 100 * pid,
    ...more,
  };
}

const redis = candidate(10, 'redis-server', { cgroup: '/system.slice/redis-server.service' });
const worker = candidate(11, 'worker', { cgroup: '/system.slice/redis-server.service/sub' });
const longName = candidate(12, 'a-very-long-nam', { exe: '/opt/a-very-long-name' });
const all = [redis, worker, longName];

function selectedBy(rule: ProtectionRule): number[] {
  return selectByRules([rule], all).selected.map(({ candidate: { pid } }) => pid);
}

test('a pid is that of one process, not of a later one with the same number', () => {
  assert.deepEqual(selectedBy({ kind: 'pid', pid: 10, startTicks: 1000, comm: 'redis-server' }), [10]);
  assert.deepEqual(selectedBy({ kind: 'pid', pid: 10, startTicks: 999, comm: 'redis-server' }), []);
});

test('a command is found by its name, also where the kernel cut it off', () => {
  assert.deepEqual(selectedBy({ kind: 'command', name: 'redis-server' }), [10]);
  assert.deepEqual(selectedBy({ kind: 'command', name: 'a-very-long-name' }), [12]);
  assert.deepEqual(selectedBy({ kind: 'command', name: 'redis' }), []);
});

test("a command is found by its program's file when it has renamed itself", () => {
  const renamed = candidate(13, 'tmux: server', { exe: '/usr/bin/tmux' });
  assert.equal(selectByRules([{ kind: 'command', name: 'tmux' }], [renamed]).selected.length, 1);
});

test('a unit has all processes of its cgroup and of those below', () => {
  assert.deepEqual(selectedBy({ kind: 'unit', unit: 'redis-server.service' }), [10, 11]);
  assert.deepEqual(selectedBy({ kind: 'unit', unit: 'system.slice' }), [10, 11]);
});

test('what cannot be read matches nothing, and harms nothing', () => {
  const damaged = candidate(14, 'x', { exe: undefined, cgroup: undefined });
  const { selected } = selectByRules([{ kind: 'unit', unit: 'x.service' }], [damaged, redis]);
  assert.deepEqual(selected, []);
});

test('rules that name no process are listed, with what became of the pid', () => {
  const rule: ProtectionRule = { kind: 'pid', pid: 10, startTicks: 1, comm: 'old' };
  const { unmatched } = selectByRules([rule, { kind: 'command', name: 'redis-server' }], all);
  assert.deepEqual(unmatched, [rule]);
  assert.equal(
    explainUnmatched(rule, all),
    '--pid 10 [old] (that pid was another process by then: redis-server)',
  );
});
