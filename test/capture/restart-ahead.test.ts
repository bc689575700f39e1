import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { ptRegsStruct, taskPtRegs } from '../../src/linux/arch/x86/ptrace.ts';
import { findPid, pidTask } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`a thread that goes on with a call, ${release}`, () => {
    const { program } = truthOf(release);
    const request = { roots: [program.pid], includeDescendants: true };

    /** Why the program is refused, had the kernel put it back to before its call with this number. */
    function reasons(number: bigint): readonly string[] {
      const kernel = openFixture(release);
      const entry = findPid(kernel, program.pid) ?? assert.fail();
      const task = taskAt(kernel, pidTask(kernel, entry, 'PIDTYPE_PID') ?? assert.fail());
      const regs = taskPtRegs(kernel, task.stack);
      const layout = kernel.bind(ptRegsStruct);
      const values = { ax: number, ip: regs.ip - 2n, cx: regs.ip };
      const patches = (['ax', 'ip', 'cx'] as const).map((name) => ({
        physical: kernel.memory.translate(regs.address + BigInt(layout.offsetOf(name))),
        bytes: word(values[name]),
      }));
      return captureProcesses(openPatched(release, patches), request).refused.flatMap((one) => one.reasons);
    }

    test('is refused by name in front of restart_syscall(2), and of no other', () => {
      const named = /^thread \d+ was about to go on with a system call that nothing names/;
      assert.ok(reasons(219n).some((reason) => named.test(reason)));
      assert.ok(!reasons(7n).some((reason) => named.test(reason)));
    });
  });
}
