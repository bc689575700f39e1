import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt, taskStruct } from '../../src/linux/sched.ts';
import { readPending, signalStruct } from '../../src/linux/signal.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

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
    const capture = (from: Kernel) => {
      const { groups, refused } = captureProcesses(from, { roots: [pid], includeDescendants: false });
      assert.deepEqual(refused, []);
      return groups.flatMap(({ processes }) => processes)[0] ?? assert.fail();
    };
    const numbers = (signals: readonly Uint8Array[] | undefined) => signals?.map((info) => info[0]);

    it('are those that were pending, for a thread or for all of it', () => {
      const { threads } = capture(withWord(taskMember('pendingSignal'), SIGTRAP_BIT));
      assert.deepEqual(numbers(threads[0]?.pendingSignals), [5]);
      const { sharedPendingSignals } = capture(withWord(signalMember('sharedPendingSignal'), SIGTRAP_BIT));
      assert.deepEqual(numbers(sharedPendingSignals), [5]);
    });

    it('are read from a sound list alone: one that leads back into itself is damaged', () => {
      const made = new MadeKernel(release);
      const [head, first] = [made.allocate('sigqueue'), made.allocate('sigqueue')];
      const link = (from: bigint, next: bigint, prev: bigint) => {
        made.set('sigqueue', from, 'list.next', next);
        made.set('sigqueue', from, 'list.prev', prev);
      };
      made.write(made.memberAddress('sigqueue', first, 'info'), Buffer.from([17]));
      link(head, first, first);
      link(first, head, head);
      assert.deepEqual(
        readPending(made, head, 0n).map(({ signal }) => signal),
        [17],
      );
      // As the kernel leaves a signal that somebody has taken.
      link(first, first, first);
      assert.throws(() => readPending(made, head, 0n), /points back to/);
    });

    it('that have stopped it were told to its parent by wait(2) once the code of the stop is gone', () => {
      assert.equal(capture(kernel).stopNotice, undefined);
      const stopped = {
        physical: kernel.memory.translate(signalMember('flags')),
        bytes: word(SIGNAL_STOP_STOPPED),
      };
      assert.equal(capture(openPatched(release, [stopped])).stopNotice, 'taken');
      const code = Buffer.alloc(4);
      code.writeInt32LE(19);
      const untold = { physical: kernel.memory.translate(signalMember('group_exit_code')), bytes: code };
      assert.equal(capture(openPatched(release, [stopped, untold])).stopNotice, 'sent');
    });
  });
}
