import assert from 'node:assert/strict';
import { describe, it, test } from 'node:test';
import { parseCriuVersion, restoreProblems, wholeGroup } from '../../../src/criu/images/limits.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import { groupOf, processOf, threadOf } from '../processes.ts';

const old = { major: 3, minor: 17 };
const recent = { major: 4, minor: 1 };

describe('what CRIU cannot restore', () => {
  it('depends on its version', () => {
    assert.deepEqual(parseCriuVersion('Version: 3.17.1\nGitID: v3.17.1\n'), old);
    assert.equal(parseCriuVersion('criu: not found'), undefined);
    const [thread] = [threadOf(9)];
    const hardened = threadOf(9, {
      credentials: { ...thread!.credentials, noNewPrivs: true, capAmbient: 1n },
    });
    const group = groupOf([processOf(9, { threads: [hardened] })]);
    assert.deepEqual(restoreProblems(group, recent), []);
    assert.equal(restoreProblems(group, old)[0]?.reasons.length, 2);
  });

  test('is, before its release 4.1, an interval timer that goes off once', () => {
    const none = { intervalMicroseconds: 0, remainingMicroseconds: 0 };
    const once = { intervalMicroseconds: 0, remainingMicroseconds: 5 };
    const withTimers = (real: typeof none, prof: typeof none) =>
      groupOf([processOf(9, { intervalTimers: { real, virtual: none, prof } })]);
    const reason =
      'has a timer that goes off once (alarm, setitimer), which CRIU before 4.1 does not restore';
    for (const version of [old, { major: 4, minor: 0 }]) {
      for (const group of [withTimers(once, none), withTimers(none, once)])
        assert.deepEqual(restoreProblems(group, version)[0]?.reasons, [reason]);
      const periodic = { intervalMicroseconds: 9, remainingMicroseconds: 5 };
      assert.deepEqual(restoreProblems(withTimers(periodic, none), version), []);
    }
    assert.deepEqual(restoreProblems(withTimers(once, once), recent), []);
    assert.ok(adviceFor(reason));
  });

  it('is, before its release 4, whoever is in a sandbox', () => {
    const sandbox = { unit: 'web.service', mounts: [], outside: [], privateDirectories: [] };
    const group = { ...groupOf([processOf(9), processOf(10)]), sandbox };
    assert.deepEqual(restoreProblems(group, recent), []);
    const [refusal, other] = restoreProblems(group, old);
    assert.deepEqual(refusal?.reasons, [
      'is in the sandbox of web.service, where CRIU before 4.0 has restored nobody yet',
    ]);
    assert.match(adviceFor(refusal?.reasons[0] ?? '') ?? '', /^services come back .* with CRIU 4/);
    assert.equal(other?.pid, 10);
  });

  it('is a signal for the death of a parent that stays dead', () => {
    const orphan = processOf(9, { threads: [threadOf(9, { parentDeathSignal: 15 })] });
    assert.match(restoreProblems(groupOf([orphan]), recent)[0]?.reasons[0] ?? '', /wants signal 15/);
    const child = processOf(10, { ppid: 9, threads: [threadOf(10, { parentDeathSignal: 15 })] });
    assert.deepEqual(restoreProblems(groupOf([processOf(9), child]), recent), []);
  });
});

describe('a group of whom one cannot be restored', () => {
  it('is refused as a whole, each by name', () => {
    const group = groupOf([processOf(7), processOf(8)]);
    const refused = wholeGroup(group, [{ pid: 7, comm: 'one', reasons: ['is impossible'] }]);
    assert.deepEqual(
      refused.map(({ pid, reasons }) => [pid, reasons]),
      [
        [7, ['is impossible']],
        [8, ['belongs together with 7 (one), which cannot come back']],
      ],
    );
  });
});
