import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RingBudget } from '../../src/capture/files/io-uring-state.ts';
import { type JudgeSource, judge, type LostProcess } from '../../src/capture/judge.ts';
import type { Process } from '../../src/model/process.ts';
import { newFindings } from '../../src/model/verdict.ts';

const APART = 'belongs together with processes in another sandbox';
const source = {
  files: { edges: [], dependences: [] },
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

test('rings take the time of their whole group, and of all groups', () => {
  const seconds = new Map([
    ...[10, 11].map((pid) => [pid, 30] as const),
    ...[20, 21].map((pid) => [pid, 31] as const),
    ...[30, 40, 50, 60].map((pid) => [pid, 59.5] as const),
    ...([
      [70, 2],
      [80, 3],
    ] as const),
  ]);
  const living = [...seconds.keys(), 90].map((pid) => {
    const session = pid - (pid % 10);
    const ids = { pid, ppid: 1, pgid: session, sid: session };
    return { ...ids, comm: 'x', memory: undefined, findings: newFindings() } as unknown as Process;
  });
  const files = { edges: [], dependences: [], ringSeconds: (pid: number) => seconds.get(pid) ?? 0 };
  const parts = { group: () => ({ files: { memfds: [], files: [] } }) };
  const others = { homes: { of: () => undefined }, freePids: { next: () => 5 } };
  const whole = { ...others, files: { ...files, ...parts } } as unknown as JudgeSource;
  const { groups, refused } = judge(whole, living, {});
  // Who needs no time, or less than is left, comes back after one that has none.
  assert.deepEqual(
    groups.map(({ id }) => id),
    [10, 30, 40, 50, 60, 70, 90],
  );
  const together = 'is in a group whose io_urings take 62 s to make again, one process after the other';
  const late = 'is in a group whose io_urings take 3 s to make again, after 300 s for those of other groups';
  assert.deepEqual(
    refused.map(({ pid, reasons }) => [pid, reasons]),
    [
      [20, [together]],
      [21, [together]],
      [80, [late]],
    ],
  );
  assert.equal(groups[0]?.ringSeconds, 60);
  assert.equal(groups.at(-1)?.ringSeconds, undefined);
  // What is judged once more has what the first look has left.
  const budget = new RingBudget(5);
  assert.deepEqual(
    [1, 2].map(() => judge(whole, living.slice(0, 2), {}, budget).groups.length),
    [1, 1],
  );
  assert.equal(judge(whole, living.slice(0, 2), {}, budget).groups.length, 0);
  const backIn = (timeLimitMinutes: number) => judge(whole, living, { timeLimitMinutes });
  // Not more than 300 s, however much time there is, and half of it if there is less.
  assert.equal(backIn(30).groups.length, groups.length);
  assert.deepEqual(
    backIn(4).groups.map(({ id }) => id),
    [10, 30, 90],
  );
  const short = backIn(1);
  assert.deepEqual(
    short.groups.map(({ id }) => id),
    [70, 80, 90],
  );
  assert.deepEqual(short.refused.find(({ pid }) => pid === 30)?.reasons, [
    'is in a group whose io_urings take 60 s to make again, where time-limit-minutes leaves 30 s for all',
  ]);
});

test('who depends on another one is refused with it, and comes back in a group of its own if that may', () => {
  const one = (pid: number, ...reasons: string[]): Process => {
    const findings = { ...newFindings(), reasons };
    const ids = { pid, ppid: 1, pgid: pid, sid: pid };
    return { ...ids, comm: 'x', memory: undefined, findings } as unknown as Process;
  };
  const pair = (a: number, b: number) => ({ pids: [a, b] as const, why: 'a TCP connection' });
  const files = {
    ...{ edges: [{ pids: [20, 21] as const, why: 'a pipe' }], ringSeconds: () => 0 },
    // The last one is of somebody who was not captured.
    dependences: [pair(10, 20), pair(21, 30), pair(40, 50), pair(60, 99)],
    group: () => ({ files: { memfds: [], files: [] } }),
  };
  const others = { homes: { of: () => undefined }, freePids: { next: () => 5 } };
  const candidates = [one(10), one(20), one(21), one(30, 'has a device open'), one(40), one(50), one(60)];
  const { groups, refused, ties, alone } = judge(
    { ...others, files } as unknown as JudgeSource,
    candidates,
    {},
  );
  assert.deepEqual(
    groups.map(({ processes }) => processes.map(({ pid }) => pid)),
    [[40], [50], [60]],
  );
  assert.deepEqual(
    new Map(refused.map(({ pid, reasons }) => [pid, reasons])),
    new Map([
      [30, ['has a device open']],
      [20, ['belongs together with 30 (x), which cannot come back']],
      [21, ['is tied to 30 (x; a TCP connection), which cannot come back']],
      [10, ['is tied to 20 (x; a TCP connection), which cannot come back']],
    ]),
  );
  assert.deepEqual(ties.get(40), [pair(40, 50)]);
  assert.equal(ties.get(60), undefined);
  // Nobody comes back for its procedure alone while another one waits for its end.
  assert.deepEqual(alone, []);
});
