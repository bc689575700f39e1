import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { settleNewThread } from '../../../src/capture/calls/new-thread.ts';
import type { MemoryPatch } from '../../../src/capture/calls/timeout.ts';
import { inactiveTaskFrameStruct } from '../../../src/linux/arch/x86/switch-to.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { Vma } from '../../../src/model/memory.ts';
import type { Findings } from '../../../src/model/verdict.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../../vmcore/fixtures.ts';

const ADDRESS = 0x7000_0010;
const ENOSYS = -38n;

for (const release of releases) {
  const kernel = openFixture(release);
  const { pid } = truthOf(release).program;
  const task = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  const at = (address: bigint): number => kernel.memory.translate(address);
  const setChildTid = BigInt(kernel.layouts.member('task_struct', 'set_child_tid')?.offsetBytes ?? 0);
  const returnsTo = BigInt(kernel.bind(inactiveTaskFrameStruct).offsetOf('ret_addr'));
  const beginning = kernel.symbolMaybe('ret_from_fork_asm') ?? kernel.symbol('ret_from_fork');

  /** What is done about a thread that is to find its number, and stands where it begins, or not. */
  function settled(
    ip: bigint | undefined,
    name: string | undefined,
    area: Partial<Vma> = {},
    { cpu, result = ENOSYS }: { cpu?: number; result?: bigint } = {},
  ) {
    const patches: MemoryPatch[] = [];
    const reasons: string[] = [];
    const vma = { start: 0x7000_0000, end: 0x7000_1000, kind: 'anonymous', prot: 3, ...area };
    const other = openPatched(release, [
      { physical: at(task.address + setChildTid), bytes: word(BigInt(ADDRESS)) },
      ...(ip === undefined ? [] : [{ physical: at(task.thread.sp + returnsTo), bytes: word(ip) }]),
    ]);
    settleNewThread(
      other,
      taskAt(other, task.address),
      cpu,
      { name, result },
      {
        vmas: [vma as Vma],
        user: {
          read: (_: bigint, length: number) => ({ kind: 'bytes', bytes: Buffer.alloc(length) }),
        } as never,
        patches,
        findings: { reasons, notes: [] } as unknown as Findings,
      },
    );
    other.close();
    return { patches, reasons };
  }

  describe(`a thread of ${release} that has not run yet`, () => {
    it('finds its number where it was told to look for it', () => {
      const { patches, reasons } = settled(beginning, 'clone');
      assert.deepEqual(reasons, []);
      assert.deepEqual(
        patches.map(({ address, bytes }) => [address, Buffer.from(bytes).readInt32LE()]),
        [[ADDRESS, pid]],
      );
    });

    it('is not there where nothing can be written, as for the kernel', () => {
      for (const area of [{ prot: 1 }, { start: 0x7000_1000, end: 0x7000_2000 }])
        assert.deepEqual(settled(beginning, 'clone', area), { patches: [], reasons: [] });
    });

    it('does not come back if its number cannot be written in what it shares', () => {
      const { patches, reasons } = settled(beginning, 'clone', { kind: 'shared' as never });
      assert.equal(patches.length, 0);
      assert.match(reasons[0] ?? '', /had not run yet/);
    });

    it('is told by the result of its call where its stack does not tell', () => {
      // No note is this CPU's: nothing tells where on its stack it was.
      const found = (result: bigint) => settled(undefined, 'clone', {}, { cpu: 7, result });
      assert.deepEqual(
        found(0n).patches.map(({ address, bytes }) => [address, Buffer.from(bytes).readInt32LE()]),
        [[ADDRESS, pid]],
      );
      for (const result of [ENOSYS, 4711n]) assert.deepEqual(found(result), { patches: [], reasons: [] });
    });

    it('is told from one that has run', () => {
      for (const result of [ENOSYS, 0n])
        assert.deepEqual(settled(undefined, 'clone', {}, { result }), { patches: [], reasons: [] });
      assert.deepEqual(settled(beginning, 'read'), { patches: [], reasons: [] });
    });
  });
}
