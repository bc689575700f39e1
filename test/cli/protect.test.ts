import assert from 'node:assert/strict';
import { test } from 'node:test';
import { liveProcess } from '../../src/arm/live-processes.ts';
import { parseLosses, pidRules } from '../../src/cli/protect.ts';
import { requireTarget } from '../../src/cli/rule-targets.ts';
import type { Matchable } from '../../src/config/match.ts';

function process(pid: number): [number, Matchable] {
  return [pid, { pid, comm: `p${pid}`, exe: undefined, cgroup: undefined, startTicks: pid, owner: 0 }];
}

test('a pid that is gone is named, and the others are protected', () => {
  const { rules, problems } = pidRules([20, 99, 1, 30, 20], new Map([process(1), process(20), process(30)]));
  assert.deepEqual(
    rules.map((rule) => rule.kind === 'pid' && rule.pid),
    [20, 30],
  );
  assert.match(problems[0] ?? '', /^there is no process 99 /);
  assert.match(problems[1] ?? '', /^process 1 cannot be protected/);
  assert.equal(problems.length, 2);
});

test('a user is one of something', () => {
  const none = { pid: [], command: [], unit: [] };
  assert.throws(() => requireTarget({ ...none, pid: [5], user: 'alice' }), /--user goes with/);
  assert.throws(() => requireTarget(none), /say what/);
  requireTarget({ ...none, command: ['tmux'], user: 'alice' });
});

test('a running process has its user', () => {
  assert.equal(liveProcess(globalThis.process.pid)?.owner, globalThis.process.getuid?.());
});

test('what may be lost is named by its kinds, and another name is an error that tells them', () => {
  assert.deepEqual(parseLosses('connections'), ['connections']);
  assert.deepEqual(parseLosses('connections, connections', ['connections']), ['connections']);
  for (const bad of ['memory', '', 'connections,'])
    assert.throws(() => parseLosses(bad), /^UsageError: --allow-loss .*there are connections$/);
});
