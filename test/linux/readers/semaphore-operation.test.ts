import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { StackFrame } from '../../../src/linux/readers/kernel-stack.ts';
import { doneOperation } from '../../../src/linux/readers/semaphore-operation.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

type Operation = readonly [task: bigint, status: number];

const TASK = 0xffff_8880_1234_0000n;

for (const release of releases) {
  suite(`an operation on semaphores that others have done, in ${release}`, () => {
    const frame = (name: string, sp: bigint, calls?: string): StackFrame => ({
      ...{ ip: 0n, sp, isInterrupted: false, function: name, calls },
    });

    /** A stack with operations in the frame of the call, each of a task and with a status. */
    const made = (...operations: readonly Operation[]) => {
      const kernel = new MadeKernel(release);
      const stack = kernel.physicalToVirtual(kernel.tables.allocate());
      operations.forEach(([task, status], i) => {
        const at = stack + 0x28n + BigInt(i * 0x50);
        kernel.set('sem_queue', at, 'sleeper', task);
        kernel.set('sem_queue', at, 'status', status);
      });
      const frames = [
        frame('schedule_hrtimeout_range_clock', stack - 0x80n, 'schedule'),
        frame('__do_semtimedop', stack, 'schedule_hrtimeout_range'),
        frame('do_syscall_64', stack + 0x200n),
      ];
      return { kernel, frames };
    };
    const resultOf = (...operations: readonly Operation[]): number | undefined => {
      const { kernel, frames } = made(...operations);
      return doneOperation(kernel, { address: TASK }, frames);
    };

    test('has its result where the call keeps it', () => {
      assert.equal(resultOf([TASK, 0]), 0);
      assert.equal(resultOf([TASK, -43]), -43);
      assert.equal(resultOf([TASK - 8n, 0], [TASK, -34]), -34);
    });

    test('is not known while it waits, of nobody, or of two', () => {
      assert.equal(resultOf([TASK, -4]), undefined);
      assert.equal(resultOf([TASK + 8n, 0]), undefined);
      assert.equal(resultOf(), undefined);
      assert.equal(resultOf([TASK, 0], [TASK, -4]), undefined);
    });

    test('is not known once the call has gone on, or if its frame cannot be told', () => {
      const { kernel, frames } = made([TASK, 0]);
      const [inner, own, outer] = frames;
      assert.ok(inner !== undefined && own !== undefined && outer !== undefined);
      const of = (...list: StackFrame[]) => doneOperation(kernel, { address: TASK }, list);
      assert.equal(of(inner, own, outer), 0);
      assert.equal(of({ ...own, calls: undefined }, outer), undefined);
      assert.equal(of(inner, own), undefined);
      assert.equal(of(own, { ...outer, sp: own.sp + 0x8000n }), undefined);
      assert.equal(of(own, { ...outer, sp: own.sp + 0x40n }), undefined);
    });
  });
}
