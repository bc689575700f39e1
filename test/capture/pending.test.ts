import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt, taskStruct } from '../../src/linux/sched.ts';
import { signalStruct } from '../../src/linux/signal.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

const SIGTRAP_BIT = 1n << 4n;
const SIGNAL_STOP_STOPPED = 1n;

for (const release of releases) {
  describe(`signals of a process of ${release}`, () => {
    const kernel = openFixture(release);
    const { pid } = truthOf(release).program;
    const task = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
    const taskMember = (name: string) => task.address + BigInt(kernel.bind(taskStruct).offsetOf(name));
    const signalMember = (name: string) => task.signal + BigInt(kernel.bind(signalStruct).offsetOf(name));
    const withWord = (address: bigint, value: bigint): Kernel =>
      openPatched(release, [{ physical: kernel.memory.translate(address), bytes: word(value) }]);
    const capture = (from: Kernel) => captureProcesses(from, { roots: [pid], includeDescendants: false });
    const notesOf = (from: Kernel) =>
      capture(from).groups.flatMap(({ processes }) => processes.flatMap(({ findings }) => findings.notes));

    it('that CRIU would use up refuse it, pending for a thread or for all of it', () => {
      assert.deepEqual(capture(kernel).refused, []);
      for (const address of [taskMember('pendingSignal'), signalMember('sharedPendingSignal')]) {
        const [refusal] = capture(withWord(address, SIGTRAP_BIT)).refused;
        assert.match(refusal?.reasons.join('\n') ?? '', /has a pending SIGTRAP/);
      }
    });

    it('that have stopped it are told to its parent once more, and that is said', () => {
      assert.doesNotMatch(notesOf(kernel).join('\n'), /has stopped/);
      assert.match(notesOf(withWord(signalMember('flags'), SIGNAL_STOP_STOPPED)).join('\n'), /has stopped/);
    });
  });
}
