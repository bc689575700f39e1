// Open files that are io_urings, and the areas that map them, in a kernel made by hand.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { CaptureContext } from '../../../src/capture/files/context.ts';
import {
  captureIoUring,
  mapIoUring,
  ringProblems,
  ringSeconds,
} from '../../../src/capture/files/io-uring.ts';
import { FileRefusal } from '../../../src/capture/files/refusal.ts';
import { outsideProblem } from '../../../src/capture/memory/memory-attributes.ts';
import { type File, fileStruct } from '../../../src/linux/fs.ts';
import { VM } from '../../../src/linux/mm.ts';
import type { Vma } from '../../../src/model/memory.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { MadeProcesses, makeList } from '../made-processes.ts';

const PID = 100;
const OTHER = 101;
const AT = 0x7f00_0000_0000;
const BIAS = 1n << 63n;
const SINGLE_ISSUER = 1 << 12;
const COUNTS = { sq_entries: 8, cq_entries: 16, cached_sq_head: 20, cached_cq_tail: 20 } as const;

for (const release of releases) {
  suite(`io_urings of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      readonly processes = new MadeProcesses(this.kernel, [PID, OTHER]);
      readonly ctx = this.kernel.allocate('io_ring_ctx');
      readonly file = this.kernel.allocate('file');
      readonly rings = this.kernel.allocate('io_rings');
      readonly context: CaptureContext;

      /** One that nothing is in flight in; of two completions one is read. */
      constructor() {
        const { kernel, ctx, rings, file } = this;
        const lists = ['cq_overflow_list', 'timeout_list', 'ltimeout_list', 'defer_list'];
        for (const list of lists) makeList(kernel, kernel.memberAddress('io_ring_ctx', ctx, list));
        const data = kernel.allocate('percpu_ref_data');
        kernel.set('percpu_ref_data', data, 'count.counter', BIAS + 1n);
        kernel.allocatePerCpu('ring_refs', 'list_head');
        const arrayAt = Number(kernel.memberAddress('io_rings', rings, 'cqes') - rings);
        const parts = { rings, sq_sqes: kernel.allocate('io_rings'), n_ring_pages: 1, n_sqe_pages: 1 };
        const references = { 'refs.data': data, 'refs.percpu_count_ptr': kernel.symbol('ring_refs') };
        const sq_array = rings + BigInt(arrayAt + 16 * COUNTS.cq_entries);
        for (const [name, value] of Object.entries({ ...COUNTS, ...parts, ...references, sq_array }))
          this.set(name, value);
        if (kernel.hasMember('io_ring_ctx', 'clockid')) this.set('clockid', 1);
        const head = { 'sq.head': 20, 'sq.tail': 22, 'cq.tail': 20, 'cq.head': 19 };
        const sizes = { sq_ring_mask: 7, cq_ring_mask: 15, sq_ring_entries: 8, cq_ring_entries: 16 };
        for (const [name, value] of Object.entries({ ...head, ...sizes }))
          kernel.set('io_rings', rings, name, value);
        for (const [name, value] of Object.entries({ f_flags: 2, f_count: 4, private_data: ctx }))
          kernel.set('file', file, name, value);
        this.context = this.processes.context([PID, OTHER]);
        this.heldBy(PID);
      }

      set(member: string, value: bigint | number): void {
        this.kernel.set('io_ring_ctx', this.ctx, member, value);
      }

      heldBy(...pids: readonly number[]): void {
        const holders = pids.map((pid) => ({ pid, comm: 'x', fd: 5, file: this.file, isProtected: true }));
        this.context.system.byFile.set(this.file, holders);
      }

      get view(): File {
        return this.kernel.bind(fileStruct).at(this.file);
      }

      capture() {
        const ring = captureIoUring(this.context, this.view);
        this.context.opened.set(this.file, ring);
        return ring;
      }

      areas(): Vma[] {
        const { id } = this.capture();
        return [0, 0x1000_0000].map((offsetBytes, i): Vma => {
          const start = AT + i * PAGE_SIZE;
          const use = {
            ...{ pid: PID, shared: true, openFlags: 2, start, end: start + PAGE_SIZE, offsetBytes, prot: 3 },
            locked: false,
          };
          const mapped = mapIoUring(this.context, this.view, use, () => id);
          assert.equal(mapped.kind, 'io-uring');
          return {
            ...{ start, end: start + PAGE_SIZE, prot: 3, growsDown: false, heap: false, stack: false },
            ...{ hugetlb: false, locked: false, noReserve: false, advice: [], offsetBytes },
            runs: listedRuns([]),
            ...mapped,
            kind: 'io-uring',
          };
        });
      }

      refusal(): string {
        try {
          captureIoUring(this.context, this.view);
          return 'none';
        } catch (error) {
          assert.ok(error instanceof FileRefusal);
          return error.reason;
        }
      }
    }

    test('have what is in their rings, and how far they have counted', () => {
      const made = new Made();
      const { requests, completions, unread, issuer, offsets, rings } = made.capture();
      assert.deepEqual([requests, completions, unread, issuer], [20, 20, 1, undefined]);
      assert.equal(offsets.sqArray, offsets.cqes + 16 * COUNTS.cq_entries);
      assert.deepEqual(
        [...rings],
        [{ address: 0, pages: 1, physical: made.kernel.memory.translate(made.rings) }],
      );
      const areas = made.areas();
      assert.deepEqual(ringProblems(made.context, PID, areas, [5]), []);
      assert.ok(ringSeconds(made.context, PID, areas) > 0);
      assert.equal(ringSeconds(made.context, OTHER, areas), 0);
    });

    test('belong to a thread that alone may use them, as long as it lives', () => {
      const made = new Made();
      made.set('flags', SINGLE_ISSUER);
      assert.match(made.refusal(), /which is gone \(IORING_SETUP_SINGLE_ISSUER\)/);
      const thread = made.processes.addThread(PID, 107);
      made.kernel.set('task_struct', thread, 'tgid', PID);
      made.set('submitter_task', thread);
      assert.equal(made.capture().issuer, 107);
      made.set('submitter_task', made.processes.taskOf(OTHER));
      assert.match(made.refusal(), /which is gone/);
    });

    test('are refused if others have them as well, or if they were set otherwise', () => {
      const made = new Made();
      made.heldBy(PID, OTHER);
      assert.equal(made.refusal(), 'shares an io_uring with PID 101 (x)');
      made.heldBy();
      assert.equal(made.refusal(), 'has an io_uring to which no descriptor leads');
      made.heldBy(PID);
      made.kernel.set('file', made.file, 'f_flags', 0o4002);
      assert.match(made.refusal(), /set otherwise/);
      made.kernel.set('file', made.file, 'f_flags', 2);
      made.kernel.set('file', made.file, 'f_ep', 0x1000n);
      assert.match(made.refusal(), /an epoll watches/);
    });

    test('are refused where no more may be made', () => {
      const made = new Made();
      made.kernel.variable('sysctl_io_uring_disabled', 0n);
      assert.equal(made.refusal(), 'none');
      made.kernel.variable('sysctl_io_uring_disabled', 2n);
      assert.equal(made.refusal(), 'has an io_uring, and kernel.io_uring_disabled is 2 by now');
    });

    test('are refused with a request in flight, and where the rings do not fit into their pages', () => {
      const made = new Made();
      made.set('work_llist.first', 0x1000n);
      assert.equal(made.refusal(), 'has an io_uring with requests in flight');
      made.set('work_llist.first', 0n);
      made.set('sq_array', made.rings + BigInt(PAGE_SIZE - 16));
      assert.equal(made.refusal(), 'has an io_uring whose rings are damaged');
    });

    test('of a living kernel are read again where they were changed meanwhile', () => {
      const made = new Made();
      const { kernel } = made;
      kernel.isAlive = true;
      let tries = 0;
      let headAt = (_: number): number => COUNTS.cached_sq_head;
      Object.assign(kernel.physical, {
        noteReads: () => {
          kernel.set('io_rings', made.rings, 'sq.head', headAt(++tries));
          return { forget: () => undefined, end: () => undefined };
        },
      });
      const refusal = (at: typeof headAt): unknown => {
        [tries, headAt] = [0, at];
        try {
          return made.capture().requests;
        } catch (error) {
          return error instanceof FileRefusal ? [error.reason, error.moment] : error;
        }
      };
      assert.equal(
        refusal((count) => (count < 3 ? 19 : 20)),
        20,
      );
      assert.deepEqual(
        refusal((count) => 20 - count),
        ['has an io_uring that changes while it is read', 'passing'],
      );
      assert.deepEqual(
        refusal(() => 19),
        ['has an io_uring whose rings are damaged', undefined],
      );
    });

    test('are refused if they are not mapped as a whole, or held by who is not known', () => {
      const made = new Made();
      const [rings, entries] = made.areas();
      assert.ok(rings !== undefined && entries !== undefined);
      const whole = /^has an io_uring that is not mapped as a whole \(fd 5\)$/;
      assert.match(ringProblems(made.context, PID, [rings], [5, 5])[0] ?? '', whole);
      assert.match(ringProblems(made.context, PID, [entries], [5, 5])[0] ?? '', whole);
      // A descriptor, two areas, and a thread that waits.
      const both = [rings, entries];
      const problems = (waits: readonly (number | undefined)[]): string =>
        ringProblems(made.context, PID, both, waits).join();
      assert.match(problems([]), /that others hold as well/);
      // In a ring of its own.
      assert.match(problems([6]), /that others hold as well/);
      // Among others that a poll waits for.
      assert.equal(problems([undefined]), '');
      assert.deepEqual(ringProblems(made.context, OTHER, [], []), []);
    });

    test('are mapped by their own process, for reading and writing', () => {
      const made = new Made();
      const { id } = made.capture();
      const use = {
        ...{ pid: PID, shared: true, openFlags: 2, start: AT, end: AT + PAGE_SIZE, offsetBytes: 0, prot: 3 },
        locked: false,
      };
      const map = (over: Partial<typeof use>) => () =>
        mapIoUring(made.context, made.view, { ...use, ...over }, () => id);
      assert.throws(map({ prot: 1 }), /mapped in another way/);
      assert.throws(map({ pid: OTHER }), /no descriptor of it leads/);
      assert.throws(map({ offsetBytes: 2 ** 31 }), /another part is mapped/);
    });
  });
}

test('an area of single pages of the kernel is a device, unless it is of an io_uring', () => {
  const area = { flags: VM.mixedMap, isWatched: false };
  assert.equal(outsideProblem(area), 'maps a device');
  assert.equal(outsideProblem(area, 'io_uring'), undefined);
  assert.equal(outsideProblem({ ...area, flags: VM.pfnMap }, 'io_uring'), 'maps a device');
});
