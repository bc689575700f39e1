import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { adviceFor } from '../../src/report/advice.ts';
import { openFixture, openPatched, releases, truthOf } from '../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`a process of ${release}`, () => {
    const whole = openFixture(release);
    const { pid } = truthOf(release).program;

    /** Why the process is refused whose `signal_struct.audit_tty` has these flags. */
    const reasonsWith = (auditTty: number) => {
      const { signal } = taskAt(whole, findTaskByPid(whole, pid) ?? assert.fail());
      const member = whole.layouts.member('signal_struct', 'audit_tty') ?? assert.fail();
      const physical = whole.memory.translate(signal + BigInt(member.offsetBytes));
      const kernel = openPatched(release, [{ physical, bytes: Uint8Array.of(auditTty, 0, 0, 0) }]);
      const { refused } = captureProcesses(kernel, { roots: [pid], includeDescendants: false });
      return refused.map((refusal) => [refusal.pid, refusal.reasons]);
    };

    test('of which terminal input is audited is refused, and only where that is turned on', () => {
      const reason = 'has its terminal input audited (pam_tty_audit)';
      assert.deepEqual(reasonsWith(1), [[pid, [reason]]]);
      assert.deepEqual(reasonsWith(3), [[pid, [reason]]]);
      // AUDIT_TTY_LOG_PASSWD alone says what would be left out of a log that is not kept.
      assert.deepEqual(reasonsWith(2), []);
      assert.deepEqual(reasonsWith(0), []);
      assert.match(adviceFor(reason) ?? '', /pam_tty_audit/);
    });
  });
}
