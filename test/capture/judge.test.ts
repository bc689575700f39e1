import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type JudgeSource, judge, type LostProcess } from '../../src/capture/judge.ts';
import { newFindings } from '../../src/model/verdict.ts';

const APART = 'belongs together with processes in another sandbox';
const source = {
  files: { edges: [] },
  homes: { of: () => 'several', reason: () => APART },
} as unknown as JudgeSource;

test('who belongs together with others in another sandbox keeps the reasons of its own', () => {
  const member = (pid: number, ...reasons: string[]): LostProcess => {
    const findings = { ...newFindings(), reasons };
    return { pid, ppid: 1, pgid: 7, sid: 7, comm: 'x', memory: undefined, findings, isLost: true };
  };
  const { groups, refused } = judge(source, [member(7, 'has a device open'), member(8)], {});
  assert.deepEqual(groups, []);
  assert.deepEqual(
    refused.map(({ pid, reasons }) => [pid, reasons]),
    [
      [7, ['has a device open', APART]],
      [8, [APART]],
    ],
  );
});
