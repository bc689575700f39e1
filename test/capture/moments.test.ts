import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { findPid, pidTask } from '../../src/linux/pid.ts';
import { loseInstead, momentOf, newFindings, ofTheMoment, refuseForNow } from '../../src/model/verdict.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../vmcore/fixtures.ts';

test('reasons are of the moment if each of them is, and of a CPU if that is all there is to them', () => {
  const findings = newFindings();
  assert.equal(momentOf(findings), undefined);
  refuseForNow(findings, 'is on CPU 1', 'on-cpu');
  assert.equal(momentOf(findings), 'on-cpu');
  refuseForNow(findings, 'was in execve', 'passing');
  assert.equal(momentOf(findings), 'passing');
  findings.reasons.push('uses io_uring');
  assert.equal(momentOf(findings), undefined);
});

test('what a part of the capture adds is of the moment, also if it cannot be ended', () => {
  const findings = newFindings();
  findings.reasons.push('uses io_uring');
  assert.throws(() =>
    ofTheMoment(findings, 'passing', () => {
      findings.reasons.push('was in execve');
      throw new Error('cannot be read');
    }),
  );
  ofTheMoment(findings, undefined, () => findings.reasons.push('has a seccomp filter'));
  assert.deepEqual([...findings.moments.keys()], [1]);
});

test('a reason that lasts is not of the moment because another one has the same words', () => {
  const findings = newFindings();
  refuseForNow(findings, 'uses io_uring', 'passing');
  findings.reasons.push('uses io_uring');
  assert.equal(momentOf(findings), undefined);
});

test('what a part of the capture adds is lost instead, but of a living kernel what is of the moment', () => {
  const loss = (reason: string) => ({ kind: 'execution', of: 'thread 7', what: reason }) as const;
  const [dead, living] = [newFindings(), newFindings()];
  for (const findings of [dead, living]) {
    refuseForNow(findings, 'was in execve', 'passing');
    loseInstead(findings, loss, findings === living, () => {
      refuseForNow(findings, 'is on CPU 1', 'on-cpu');
      findings.reasons.push('uses AMX');
    });
  }
  assert.deepEqual(dead.reasons, ['was in execve']);
  assert.deepEqual(
    dead.unexpected.map(({ what }) => what),
    ['is on CPU 1', 'uses AMX'],
  );
  assert.deepEqual([...dead.moments], [[0, 'passing']]);
  assert.deepEqual(living.reasons, ['was in execve', 'is on CPU 1']);
  assert.deepEqual(
    [...living.moments],
    [
      [0, 'passing'],
      [1, 'on-cpu'],
    ],
  );
  assert.deepEqual(
    living.unexpected.map(({ what }) => what),
    ['uses AMX'],
  );
});

for (const release of releases) {
  suite(`reasons of the moment in ${release}`, () => {
    const { program } = truthOf(release);
    const request = { roots: [program.pid], includeDescendants: true };

    /** The fixture with members of the program's task changed. */
    function changed(members: Readonly<Record<string, number>>): Kernel {
      const kernel = openFixture(release);
      const entry = findPid(kernel, program.pid) ?? assert.fail();
      const task = pidTask(kernel, entry, 'PIDTYPE_PID') ?? assert.fail();
      const patches = Object.entries(members).map(([member, value]) => {
        const { offsetBytes } = kernel.layouts.member('task_struct', member) ?? assert.fail(member);
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32LE(value);
        return { physical: kernel.memory.translate(task + BigInt(offsetBytes)), bytes };
      });
      return openPatched(release, patches);
    }

    test('are marked among those that last', () => {
      const [refusal] = captureProcesses(changed({ on_cpu: 1, ptrace: 1 }), request).refused;
      assert.ok(refusal?.reasons.includes(`thread ${program.pid} is traced by a debugger`));
      const marked = [...(refusal?.moments ?? [])];
      assert.deepEqual(
        marked.map(([at, moment]) => [/nothing tells on which/.test(refusal?.reasons[at] ?? ''), moment]),
        [[true, 'on-cpu']],
      );
    });

    test('refuse a process of a dead kernel, and of a living one only if asked for', () => {
      const kernel = changed({ on_cpu: 1 });
      assert.equal(captureProcesses(kernel, request).refused.length, 1);
      const { groups, refused } = captureProcesses(kernel, { ...request, inSpiteOfMoments: true });
      assert.deepEqual(refused, []);
      const process = groups[0]?.processes.find(({ pid }) => pid === program.pid);
      assert.equal(momentOf(process?.findings ?? newFindings()), 'on-cpu');
    });

    test('do not hide those that last', () => {
      const kernel = changed({ on_cpu: 1, ptrace: 1 });
      const { groups, refused } = captureProcesses(kernel, { ...request, inSpiteOfMoments: true });
      assert.deepEqual([groups.length, refused.length], [0, 1]);
    });
  });
}
