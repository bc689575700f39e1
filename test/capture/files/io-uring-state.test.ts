// What decides about an io_uring, as plain objects, and what a kernel made by hand says of one.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  type RingState,
  ringProblem,
  secondsToCount,
  togetherProblem,
} from '../../../src/capture/files/io-uring-state.ts';
import { captureRings, isRingWorker, waitsForFiles } from '../../../src/capture/rings.ts';
import { taskPtRegs, threadSize } from '../../../src/linux/arch/index.ts';
import { ioRingCtxStruct, requestsInUse, requestsOfTask } from '../../../src/linux/io-uring-types.ts';
import { newFindings } from '../../../src/model/verdict.ts';
import { ringFlags } from '../../../src/system/io-uring.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const BIAS = 1n << 63n;

interface Changes {
  readonly context?: Partial<RingState['context']>;
  readonly rings?: Partial<RingState['rings']>;
  readonly inUse?: bigint;
  readonly hasWaiting?: boolean;
}

/** A ring that has taken twenty requests; three completions are unread, two requests not taken yet. */
function state({ context, rings, inUse = 0n, hasWaiting = false }: Changes): RingState {
  return {
    context: {
      ...{ flags: 0, drain_next: 0, drain_active: 0, drain_disabled: 0, has_evfd: 0, iowq_limits_set: 0 },
      ...{ uringLockOwner: 0n, completionLock: 0, cached_sq_head: 20, sq_entries: 8, cached_cq_tail: 20 },
      ...{ cq_entries: 16, cq_extra: 0, nr_user_files: 0, nr_user_bufs: 0, completed: 0n, io_bl: undefined },
      ...{
        bufferLists: 0n,
        personalities: 0n,
        iopoll: 0n,
        work: 0n,
        fallback: 0n,
        check_cq: 0n,
        sq_data: 0n,
      },
      ...{ isRestricted: 0, n_ring_pages: 1, n_sqe_pages: 1, clockid: undefined, napi_enabled: undefined },
      ...context,
    },
    rings: {
      ...{ sqHead: 20, sqTail: 22, cqHead: 17, cqTail: 20, sq_ring_mask: 7, cq_ring_mask: 15 },
      ...{ sq_ring_entries: 8, cq_ring_entries: 16, sq_dropped: 0, sq_flags: 0, cq_overflow: 0 },
      ...rings,
    },
    inUse,
    hasWaiting,
  };
}

const why = (changes: Changes): string | undefined => ringProblem(state(changes))?.why;

test('an io_uring without requests in flight comes back, however it counts', () => {
  assert.equal(why({}), undefined);
  // All numbers count modulo 2^32.
  const counted = { cached_sq_head: 2, cached_cq_tail: 2 };
  assert.equal(
    why({ context: counted, rings: { sqHead: 2, sqTail: 5, cqTail: 2, cqHead: -3 >>> 0 } }),
    undefined,
  );
  const uneven = { cached_cq_tail: 5, drain_disabled: 1 };
  assert.equal(why({ context: uneven, rings: { cqTail: 5, cqHead: 5 } }), undefined);
  const flags = ringFlags.noSqArray | ringFlags.singleIssuer | ringFlags.deferTaskrun | ringFlags.attachWq;
  assert.equal(why({ context: { flags } }), undefined);
});

test('one with requests in flight is refused for now, whichever of its traces says so', () => {
  const traces: Changes[] = [{ inUse: 1n }, { hasWaiting: true }];
  for (const list of ['completed', 'iopoll', 'work', 'fallback', 'check_cq'] as const)
    traces.push({ context: { [list]: 0x1000n } });
  for (const changes of traces)
    assert.deepEqual(ringProblem(state(changes)), { why: 'with requests in flight', moment: 'passing' });
  for (const context of [{ uringLockOwner: 1n }, { completionLock: 1 }])
    assert.deepEqual(ringProblem(state({ context })), { why: 'that was being changed', moment: 'passing' });
  assert.match(why({ context: { drain_active: 1 } }) ?? '', /waits for all before it/);
  assert.match(why({ rings: { sq_flags: 2 } }) ?? '', /something to do/);
});

test('one with what is not made again is refused by its name', () => {
  const cases: readonly (readonly [Partial<RingState['context']>, RegExp])[] = [
    [{ flags: ringFlags.sqpoll }, /IORING_SETUP_SQPOLL/],
    [{ flags: ringFlags.iopoll }, /IORING_SETUP_IOPOLL/],
    [{ flags: ringFlags.disabled }, /IORING_SETUP_R_DISABLED/],
    [{ flags: 1 << 14 }, /IORING_SETUP_NO_MMAP/],
    [{ flags: 1 << 15 }, /IORING_SETUP_REGISTERED_FD_ONLY/],
    [{ flags: 1 << 20 }, /made with flags 0x100000/],
    [{ nr_user_files: 1 }, /registered files/],
    [{ nr_user_bufs: 1 }, /registered buffers/],
    [{ has_evfd: 1 }, /registered eventfd/],
    [{ bufferLists: 1n }, /provided buffers/],
    [{ io_bl: 1n }, /provided buffers/],
    [{ personalities: 1n }, /personalities/],
    [{ isRestricted: 1 }, /restrictions/],
    [{ iowq_limits_set: 1 }, /limits on its workers/],
    [{ clockid: 7 }, /clock of its own/],
    [{ napi_enabled: 1 }, /network devices/],
  ];
  for (const [context, reason] of cases) assert.match(why({ context }) ?? '', reason);
});

test('one whose counts cannot be had again is refused', () => {
  assert.match(why({ rings: { sq_dropped: 1 } }) ?? '', /dropped requests/);
  assert.match(why({ rings: { cq_overflow: 1 } }) ?? '', /lost completions/);
  // To wait for all requests before it goes by the difference.
  const uneven = /other completions than one for each request/;
  assert.match(why({ context: { cached_cq_tail: 5 }, rings: { cqTail: 5, cqHead: 5 } }) ?? '', uneven);
  assert.match(why({ context: { cq_extra: 1 } }) ?? '', uneven);
  const even = /asked for no completion and had one/;
  assert.match(why({ context: { drain_disabled: 1 } }) ?? '', even);
  assert.match(why({ context: { drain_disabled: 1, cq_extra: 1 } }) ?? '', even);
  const more = { context: { cached_cq_tail: 21, drain_disabled: 1 }, rings: { cqTail: 21 } };
  assert.match(why(more) ?? '', uneven);
  const many = { cached_sq_head: 4_000_000_000, cached_cq_tail: 4_000_000_000 };
  const there = {
    sqHead: 4_000_000_000,
    sqTail: 4_000_000_000,
    cqTail: 4_000_000_000,
    cqHead: 4_000_000_000,
  };
  assert.match(
    why({ context: many, rings: there }) ?? '',
    /has taken 4000000000 requests: counting there again would take \d+ s/,
  );
  const one = state({ context: { cached_sq_head: 1_000_000 } }).context;
  assert.ok(secondsToCount({ ...one, flags: ringFlags.singleIssuer }) > 10 * secondsToCount(one));
});

test('several have to be had again in the time for one, and between areas that are not too many', () => {
  const areas = (count: number, gap: number) =>
    Array.from({ length: count }, (_, i) => ({ start: i * (10 + gap), end: i * (10 + gap) + 10 }));
  assert.equal(togetherProblem([20, 20], areas(500, 1)), undefined);
  assert.match(
    togetherProblem([20, 20, 21], areas(1, 0)) ?? '',
    /^has 3 io_urings that take 61 s to make again/,
  );
  assert.match(
    togetherProblem([50], areas(2000, 1)) ?? '',
    /^has an io_uring that takes \d+ s to make again, with 1999 gaps between areas$/,
  );
  assert.equal(togetherProblem([50], areas(2000, 0)), undefined);
  assert.equal(togetherProblem([], areas(65_529, 0)), 'has io_urings among too many areas (65529)');
});

test('one of which the program and the kernel say different things is damaged', () => {
  const damages: Partial<RingState['rings']>[] = [
    { sqHead: 19 },
    { cqTail: 21 },
    { sqTail: 29 },
    { cqHead: 3 },
    { sq_ring_mask: 15 },
    { cq_ring_entries: 8 },
  ];
  for (const rings of damages) assert.equal(why({ rings }), 'whose rings are damaged', JSON.stringify(rings));
});

test("the kernel's own workers are no threads of the program", () => {
  const isOne = (flags: number, io_uring: bigint | undefined): boolean => isRingWorker({ flags, io_uring });
  assert.deepEqual([isOne(0x10, 0n), isOne(0x10, undefined), isOne(0x4000, 0n)], [true, true, false]);
  // It polls a ring, and has requests of its own in flight.
  assert.equal(isOne(0x10, 0x1000n), false);
});

for (const release of releases) {
  suite(`requests of an io_uring of ${release}`, () => {
    const perCpu = (
      kernel: MadeKernel,
      name: string,
      structure: string,
      values: readonly number[],
    ): bigint => {
      kernel.allocatePerCpu(name, structure);
      for (const [cpu, value] of values.entries()) {
        const bytes = Buffer.alloc(8);
        if (structure === 'list_head') bytes.writeBigInt64LE(BigInt(value));
        else bytes.writeInt32LE(value);
        kernel.write(kernel.perCpu(name, cpu), bytes);
      }
      return kernel.symbol(name);
    };

    test('are those that are allocated and not free', () => {
      const kernel = new MadeKernel(release, 2);
      const context = kernel.allocate('io_ring_ctx');
      const set = (member: string, value: bigint | number): void =>
        kernel.set('io_ring_ctx', context, member, value);
      const data = kernel.allocate('percpu_ref_data');
      // Its own, and those of three requests, counted on two CPUs.
      kernel.set('percpu_ref_data', data, 'count.counter', BIAS + 1n);
      set('refs.data', data);
      set('refs.percpu_count_ptr', perCpu(kernel, 'ring_refs', 'list_head', [8, -5]));
      const [first, second] = [kernel.allocate('list_head'), kernel.allocate('list_head')];
      kernel.set('list_head', first, 'next', second);
      set('submit_state.free_list.next', first);
      const inUse = (): bigint => requestsInUse(kernel, kernel.bind(ioRingCtxStruct).at(context));
      assert.equal(inUse(), 1n);
      if (kernel.hasMember('io_ring_ctx', 'locked_free_list')) {
        set('locked_free_list.first', kernel.allocate('list_head'));
        assert.equal(inUse(), 0n);
      }
      // Of those that are free there are not more than that are allocated.
      kernel.set('list_head', second, 'next', first);
      assert.throws(inUse, /has more requests than there are/);
    });

    test('are waited for by descriptor, or by who may wait for several files', () => {
      const kernel = new MadeKernel(release);
      const { systemCalls } = kernel.architecture;
      const threads = ['io_uring_enter', 'futex', 'ppoll', 'restart_syscall', 'io_uring_enter'].map(
        (name, i) => {
          const stack = kernel.allocate('list_head') + BigInt(PAGE_SIZE - threadSize(kernel));
          const { address } = taskPtRegs(kernel, stack);
          kernel.set('pt_regs', address, 'orig_ax', systemCalls.number(name) ?? assert.fail());
          // Of a descriptor the low half counts.
          kernel.set('pt_regs', address, 'di', (7n << 32n) + BigInt(i + 5));
          return { address: BigInt(i + 1), pid: 100 + i, stack };
        },
      );
      const nowhere = { cpuOf: new Map<bigint, number>() };
      assert.deepEqual(waitsForFiles(kernel, threads, nowhere), [5, undefined, undefined, 9]);
      // Two on CPUs, of which the first is in user mode: it has left its call.
      kernel.cpuNotes.push({ pid: 100, registers: { cs: 0x33n } }, { pid: 104, registers: { cs: 0x10n } });
      const running = { cpuOf: new Map([[1n, 0] as const, [5n, 1] as const]) };
      assert.deepEqual(waitsForFiles(kernel, threads, running), [undefined, undefined, 9]);
    });

    test('are counted by the thread that makes them, some ahead', () => {
      const kernel = new MadeKernel(release, 2);
      const task = kernel.allocate('io_uring_task');
      const set = (member: string, value: bigint | number): void =>
        kernel.set('io_uring_task', task, member, value);
      set('inflight.count', 1000);
      set('inflight.counters', perCpu(kernel, 'task_refs', 'io_uring_task', [30, -6]));
      set('cached_refs', 1024);
      assert.equal(requestsOfTask(kernel, task), 0);
      const reasons = (): readonly string[] => {
        const findings = newFindings();
        captureRings(kernel, { pid: 7, io_uring: task }, { findings, forProcedure: false });
        return findings.reasons;
      };
      assert.deepEqual(reasons(), []);
      set('cached_refs', 1023);
      assert.deepEqual(reasons(), ['thread 7 has requests in flight in an io_uring']);
      set('cached_refs', 1024);
      set('registered_rings[3]', 0x1000n);
      assert.deepEqual(reasons(), ['thread 7 uses an io_uring by a registered descriptor']);
    });
  });
}
