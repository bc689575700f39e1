import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { callWitness, sentResult, type Witnessed } from '../../../src/capture/calls/call-witness.ts';
import { hasSize } from '../../../src/capture/calls/syscall-state.ts';
import { type File, fileStruct } from '../../../src/linux/fs.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const ONE_SHOT = 0x4000_0000;
const EDGE = 0x8000_0000;
const IN = 1;

/** A thread of a process with so many threads, and no kernel stack. */
function made(threads: number): { kernel: MadeKernel; whose: Witnessed } {
  const kernel = new MadeKernel('debian13');
  const [task, signal, mm] = ['task_struct', 'signal_struct', 'mm_struct'].map((name) =>
    kernel.allocate(name),
  );
  kernel.set('signal_struct', signal ?? 0n, 'nr_threads', threads);
  kernel.set('task_struct', task ?? 0n, 'signal', signal ?? 0n);
  kernel.set('task_struct', task ?? 0n, 'mm', mm ?? 0n);
  kernel.set('mm_struct', mm ?? 0n, 'brk', 0x6000_0800n);
  const vmas = [{ start: 0x7000_0000, end: 0x7000_2000 }];
  return {
    kernel,
    whose: {
      ...{ task: taskAt(kernel, task ?? 0n), cpu: undefined, panicked: false, isSettled: false, vmas },
      user: { read: () => ({ kind: 'unmapped' }) },
    },
  };
}

const about = (threads: number, name: string, ...given: bigint[]) => {
  const { kernel, whose } = made(threads);
  return callWitness(kernel, whose, name, given, undefined);
};

describe('what is witnessed of a call', () => {
  it('is of sendfile what it has sent, and its offset moved on by that', () => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(2n ** 33n + 4097n);
    assert.deepEqual(sentResult({ bytes: 4096, start: 2n ** 33n + 1n }, [3n, 4n, 0x7000_0008n, 9999n]), {
      value: 4096n,
      reason: '4096 bytes were moved',
      writes: { address: 0x7000_0008, bytes },
    });
  });
  it('is that munmap is done where nothing is mapped', () => {
    for (const threads of [1, 2])
      assert.equal(about(threads, 'munmap', 0x7000_2000n, 4096n).known?.value, 0n, String(threads));
    for (const given of [
      [0x7000_0000n, 4096n],
      [0x6fff_f000n, 4097n],
      [0x7000_2001n, 4096n],
      [0x7000_2000n, 0n],
      [1n << 47n, 4096n],
    ])
      assert.equal(about(1, 'munmap', ...given).known, undefined, String(given));
  });

  it('is that brk is done where the heap ends as it is to, and nothing is behind it', () => {
    assert.equal(about(1, 'brk', 0x6000_0800n).known?.value, 0x6000_0800n);
    assert.equal(about(1, 'brk', 0x6000_1000n).known, undefined);
    assert.equal(about(1, 'brk', 0n).known, undefined);
    const { kernel, whose } = made(1);
    const vmas = [{ start: 0x6000_0000, end: 0x6000_2000 }];
    assert.equal(callWitness(kernel, { ...whose, vmas }, 'brk', [0x6000_0800n], undefined).known, undefined);
  });

  it('is that a size may be set again that the file has', () => {
    const { kernel } = made(1);
    const [file, inode] = [kernel.allocate('file'), kernel.allocate('inode')];
    kernel.set('inode', inode, 'i_size', 100);
    kernel.set('file', file, 'f_inode', inode);
    const opened = kernel.bind(fileStruct).at(file);
    assert.ok(hasSize(kernel, opened, 100n));
    assert.ok(!hasSize(kernel, opened, 99n));
  });

  it('is that memory must not be given back twice, nor replaced, among threads', () => {
    const fixed = [0x7000_0000n, 4096n, 3n, 0x32n];
    for (const [name, given] of [
      ['munmap', [0x7000_0000n, 4096n]],
      ['brk', [0x6000_1000n]],
      ['mmap', fixed],
    ] as const) {
      assert.notEqual(about(2, name, ...given).notTwice, undefined, name);
      assert.equal(about(1, name, ...given).notTwice, undefined, name);
    }
    assert.equal(about(2, 'mmap', 0n, 4096n, 3n, 0x22n).notTwice, undefined);
    assert.equal(about(2, 'mprotect', 0x7000_0000n, 4096n, 1n).notTwice, undefined);
  });

  it('is that io_uring_enter has given its requests to the kernel when it sleeps, and does not do so again', () => {
    const { kernel, whose } = made(1);
    const known = (isSettled: boolean, ...given: bigint[]) =>
      callWitness(kernel, { ...whose, isSettled }, 'io_uring_enter', given, undefined).known?.value;
    assert.equal(known(true, 5n, 3n, 1n, 1n), 3n);
    assert.equal(known(true, 5n, 3n, 1n, 9n), 3n);
    assert.equal(known(true, 5n, 0n, 1n, 1n), undefined);
    // It may have a time limit, of which nothing tells the rest: EINTR.
    assert.equal(known(true, 5n, 0n, 1n, 9n), -4n);
    assert.equal(known(false, 5n, 3n, 1n, 1n), undefined);
  });

  it('is that epoll_wait may have taken an event for good, where a one-shot watch is disarmed', () => {
    for (const [events, isTaken] of [
      [IN, false],
      [IN + EDGE, false],
      [IN + ONE_SHOT, false],
      [ONE_SHOT, true],
      [ONE_SHOT + EDGE, true],
    ] as const) {
      const { kernel, whose } = made(1);
      const file = epollFile(kernel, events);
      const { notTwice } = callWitness(kernel, whose, 'epoll_wait', [3n], file);
      assert.equal(notTwice !== undefined, isTaken, events.toString(16));
    }
  });

  it('is nothing of its progress where its kernel stack is not there', () => {
    const { progress } = about(1, 'unlink', 0n);
    assert.deepEqual(progress, { kind: 'unknown', why: 'it has no kernel stack' });
  });
});

/** An epoll with one watch. */
function epollFile(kernel: MadeKernel, events: number): File {
  const [file, epoll, watch] = ['file', 'eventpoll', 'epitem'].map((name) => kernel.allocate(name));
  kernel.symbols.set('eventpoll_fops', 0xffff_ffff_8100_0000n);
  kernel.set('file', file ?? 0n, 'f_op', 0xffff_ffff_8100_0000n);
  kernel.set('file', file ?? 0n, 'private_data', epoll ?? 0n);
  kernel.set('eventpoll', epoll ?? 0n, 'file', file ?? 0n);
  kernel.set('eventpoll', epoll ?? 0n, 'rbr.rb_root.rb_node', watch ?? 0n);
  kernel.set('eventpoll', epoll ?? 0n, 'rbr.rb_leftmost', watch ?? 0n);
  kernel.set('epitem', watch ?? 0n, 'ep', epoll ?? 0n);
  kernel.set('epitem', watch ?? 0n, 'event.events', events);
  return kernel.bind(fileStruct).at(file ?? 0n);
}
