import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadRules, type ProtectionRule, updateRules } from '../../../src/config/protection.ts';
import { renewPidRules, startTicks } from '../../../src/crash-world/processes/renew-rules.ts';
import type { ProcessReport } from '../../../src/report/schema.ts';
import { emptyReport } from '../../report/example.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-renew-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'protection.json');

function rule(pid: number, ticks: number): ProtectionRule {
  return { kind: 'pid', pid, startTicks: ticks, comm: `p${pid}` };
}

function process(pid: number, outcome: ProcessReport['outcome']): ProcessReport {
  const nothing = { reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] };
  return { pid, comm: `p${pid}`, outcome, ...nothing };
}

test('a process that has ended costs its own rule, and the others hold for what came back', () => {
  updateRules(() => [rule(10, 1), rule(11, 1), rule(12, 1), rule(13, 1)], path);
  const processes = [process(10, 'restored'), process(11, 'restored'), process(12, 'restored')];
  const report = { ...emptyReport(), processes: [...processes, process(13, 'refused')] };
  renewPidRules(report, path, (pid) => (pid === 11 ? undefined : 1000 + pid));
  assert.deepEqual(loadRules(path).rules, [rule(13, 1), rule(10, 1010), rule(12, 1012)]);
  assert.deepEqual(report.notes, ['the rule --pid 11 [p11] goes: that process has ended since']);
  assert.deepEqual(report.errors, []);
});

test('a rule does not go over to another process that has the pid by now', () => {
  updateRules((rules) => [...rules.filter(({ kind }) => kind !== 'pid'), rule(20, 1)], path);
  const processes = [{ ...process(20, 'restored'), ended: 'while the system booted' }];
  renewPidRules({ ...emptyReport(), processes }, path, () => 99);
  assert.ok(!loadRules(path).rules.some((other) => other.kind === 'pid' && other.pid === 20));
});

test('a damaged rule is named, and costs no other', () => {
  writeFileSync(path, JSON.stringify({ version: 1, rules: [{ kind: 'pid' }, rule(10, 1)] }));
  const report = { ...emptyReport(), processes: [process(10, 'restored')] };
  renewPidRules(report, path, () => 5);
  assert.deepEqual(loadRules(path).rules, [rule(10, 5)]);
  assert.match(report.errors.join(), /rule 1 of 2 is damaged.*the damaged file is kept/);
});

test('the start time is that of a process that is there, not of one that has ended', async () => {
  assert.ok((startTicks(globalThis.process.pid) ?? 0) > 0);
  const child = spawn('true');
  await once(child, 'exit');
  assert.equal(startTicks(child.pid ?? 0), undefined);
});
