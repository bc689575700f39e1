// How far a transfer has come, on kernel stacks made by hand.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { taskPtRegs } from '../../src/linux/arch/x86/ptrace.ts';
import { transferProgress, type UserBuffer } from '../../src/linux/iov-iter.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

for (const release of releases) {
  suite(`a transfer of ${release}`, () => {
    const buffers: readonly UserBuffer[] = [
      { address: 0x7000n, length: 10n },
      { address: 0x8000n, length: 20n },
      { address: 0x9000n, length: 30n },
    ];
    const [only] = buffers as readonly [UserBuffer];

    class Made {
      readonly kernel = new MadeKernel(release);
      /** Of four pages: the registers of user mode are at the end. */
      readonly stack = this.kernel.allocate('page');
      readonly low: bigint;
      readonly iter: bigint;
      readonly list: bigint;

      constructor() {
        for (let i = 1; i < 4; i++) this.kernel.allocate('page');
        this.low = taskPtRegs(this.kernel, this.stack).address - 512n;
        [this.iter, this.list] = [this.low + 64n, this.low + 256n];
      }

      set(kind: 'ITER_UBUF' | 'ITER_IOVEC', values: Readonly<Record<string, bigint | number>>): void {
        const kernelHas = this.kernel.hasMember('iov_iter', 'iov') ? 'iov' : '__iov';
        const all = { iter_type: this.kernel.enumerator(kind), data_source: 1, ...values };
        for (const [name, value] of Object.entries(all))
          this.kernel.set('iov_iter', this.iter, name === 'iov' ? kernelHas : name, value);
      }

      setList(entries: readonly UserBuffer[]): void {
        const bytes = Buffer.alloc(16 * entries.length);
        for (const [i, { address, length }] of entries.entries()) {
          bytes.writeBigUInt64LE(address, 16 * i);
          bytes.writeBigUInt64LE(length, 16 * i + 8);
        }
        this.kernel.write(this.list, bytes);
      }

      done(
        given: readonly UserBuffer[],
        direction: 'read' | 'write' = 'write',
        isCopied = false,
      ): number | undefined {
        return transferProgress(this.kernel, this, direction, given, { low: this.low, isCopied });
      }
    }

    test('from one buffer is known by its address and length', () => {
      const made = new Made();
      made.set('ITER_UBUF', { ubuf: only.address, iov_offset: 4, count: 6 });
      assert.equal(made.done([only]), 4);
      assert.equal(made.done([only], 'read'), undefined);
      assert.equal(made.done([{ ...only, length: 11n }]), undefined);
      assert.equal(made.done(buffers), undefined);
    });

    test('from several buffers is known by all of them, at its beginning, in the middle and at its end', () => {
      const made = new Made();
      made.setList(buffers);
      const at = (passed: number, iov_offset: number, count: number): number | undefined => {
        const iov = made.list + BigInt(16 * passed);
        made.set('ITER_IOVEC', { iov, nr_segs: buffers.length - passed, iov_offset, count });
        return made.done(buffers);
      };
      assert.deepEqual([at(0, 0, 60), at(0, 3, 57), at(1, 5, 45), at(3, 0, 0)], [0, 3, 15, 60]);
      // What is left does not fit, or the list is another one.
      assert.equal(at(1, 5, 46), undefined);
      at(1, 5, 45);
      assert.equal(made.done(buffers.toReversed()), undefined);
      made.setList(buffers.slice(0, 2));
      made.set('ITER_IOVEC', { iov: made.list + 0x10_0000_0000n });
      assert.equal(made.done(buffers), undefined);
    });

    test('from one buffer may be a list of one', () => {
      const made = new Made();
      made.setList([only]);
      made.set('ITER_IOVEC', { iov: made.list, nr_segs: 1, iov_offset: 7, count: 3 });
      assert.equal(made.done([only]), 7);
    });

    test('of a read or write of a socket is in the copy, the inner one of two', () => {
      const made = new Made();
      const setOne = (at: bigint, done: number): void => {
        const values = { data_source: 1, ubuf: only.address, iov_offset: done, count: 10 - done };
        for (const [name, value] of Object.entries(values)) made.kernel.set('iov_iter', at, name, value);
        made.kernel.set('iov_iter', at, 'iter_type', made.kernel.enumerator('ITER_UBUF'));
      };
      const copied = (): number | undefined => made.done([only], 'write', true);
      setOne(made.iter, 4);
      setOne(made.low + 128n, 0);
      assert.equal(copied(), 4);
      assert.equal(made.done([only]), undefined, 'no copy is made of a pipe’s');
      setOne(made.low + 128n, 5);
      assert.equal(copied(), undefined);
      setOne(made.iter, 0);
      assert.equal(copied(), undefined);
      setOne(made.iter, 5);
      assert.equal(copied(), 5, 'it has been copied back');
      setOne(made.low + 128n, 0);
      setOne(made.low + 192n, 0);
      assert.equal(copied(), undefined, 'there are three');
    });

    test('of a read or write of a socket is not known while its copy is moved on: the other one does not count', () => {
      const made = new Made();
      const one = (at: bigint, iov_offset: number, count: number): void => {
        const values = { data_source: 1, ubuf: only.address, iov_offset, count };
        for (const [name, value] of Object.entries(values)) made.kernel.set('iov_iter', at, name, value);
        made.kernel.set('iov_iter', at, 'iter_type', made.kernel.enumerator('ITER_UBUF'));
      };
      const outer = made.low + 128n;
      one(outer, 0, 10);
      one(made.iter, 4, 6);
      assert.equal(made.done([only], 'write', true), 4);
      // The kernel sets iov_offset before count.
      one(made.iter, 7, 6);
      assert.equal(made.done([only], 'write', true), undefined);
      assert.equal(made.done([only], 'write'), 0, 'a call without a copy has one');
    });

    test('is not known if two tell different things', () => {
      const made = new Made();
      made.set('ITER_UBUF', { ubuf: only.address, iov_offset: 4, count: 6 });
      const other = made.low + 128n;
      for (const [name, value] of Object.entries({
        data_source: 1,
        ubuf: only.address,
        iov_offset: 5,
        count: 5,
      }))
        made.kernel.set('iov_iter', other, name, value);
      made.kernel.set('iov_iter', other, 'iter_type', made.kernel.enumerator('ITER_UBUF'));
      assert.equal(made.done([only]), undefined);
    });
  });
}
