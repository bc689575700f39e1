// AIO contexts: in a kernel made by hand, and what decides about one as plain objects.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type AioState, aioProblem, aioProblems, mapAioRing, ringAreaPages } from '../../src/capture/aio.ts';
import { waitActivity } from '../../src/capture/calls/served-wait.ts';
import type { CaptureContext } from '../../src/capture/files/context.ts';
import { fileAt } from '../../src/linux/file.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { percpuRefCount } from '../../src/linux/percpu-refcount.ts';
import type { Vma } from '../../src/model/memory.ts';
import { listedRuns } from '../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { releases } from '../vmcore/fixtures.ts';
import { makeFile } from '../vmcore/made-file.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';
import { MadeProcesses } from './made-processes.ts';

const PID = 100;
const AT = 0x7f00_0000_0000;
const PAGES = 2;
/** Events that fit into two pages, behind the ring's head. */
const PLACES = (PAGES * PAGE_SIZE - 32) / 32;
const MAGIC = 0xa10a10a1;
const BIAS = 1n << 63n;
const WRITABLE = 0xbbn;

/** A context of which three events are unread, the last two of them behind the end of the ring. */
function state(over: {
  context?: Partial<AioState['context']>;
  ring?: Partial<AioState['ring']>;
  available?: number;
  references?: bigint;
  hasActive?: boolean;
}): AioState {
  return {
    context: {
      ...{ user_id: AT, mmap_base: AT, mmap_size: PAGES * PAGE_SIZE, nr_events: PLACES, tail: 2, id: 1 },
      ...{ completed_events: 3, ringLockOwner: 0n, completionLock: 0 },
      ...over.context,
    },
    ring: { id: 1, nr: PLACES, head: PLACES - 1, tail: 2, magic: MAGIC, ...over.ring },
    available: over.available ?? PLACES - 4,
    references: over.references ?? 2n,
    hasActive: over.hasActive ?? false,
  };
}

test('an AIO context comes back with the events in its ring, whoever has read them', () => {
  assert.equal(aioProblem(state({})), undefined);
  // The program reads the ring itself: the kernel learns of it later.
  assert.equal(aioProblem(state({ ring: { head: 2 } })), undefined);
});

test('an AIO context is refused with requests in flight, or in the middle of a change', () => {
  for (const over of [{ available: PLACES - 5 }, { references: 3n }, { hasActive: true }])
    assert.equal(aioProblem(state(over)), 'with requests in flight');
  for (const context of [{ completionLock: 1 }, { ringLockOwner: 0x1234n }])
    assert.equal(aioProblem(state({ context })), 'whose ring was being changed');
});

test('an AIO context is refused if its ring is not the one that the kernel knows', () => {
  for (const ring of [{ nr: 5 }, { id: 2 }, { tail: 1 }, { magic: 0 }, { head: PLACES }])
    assert.equal(aioProblem(state({ ring })), 'whose ring is damaged', JSON.stringify(ring));
  assert.equal(aioProblem(state({ ring: { head: 3 } })), 'whose ring has more events than were put there');
  assert.equal(aioProblem(state({ context: { user_id: AT + 1 } })), 'whose ring is not where it was made');
});

for (const release of releases) {
  suite(`AIO contexts of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release, 2);
      readonly file = makeFile(
        this.kernel,
        'aio',
        Array.from({ length: PAGES }, (_, index) => ({ index, fill: 0, flags: ['uptodate'] as const })),
      );
      readonly context: bigint;
      readonly mm: bigint;
      readonly capture: CaptureContext;

      /** One context without requests, of which three events have come and one is unread. */
      constructor() {
        const { kernel, file } = this;
        for (const [member, value] of Object.entries({ f_mode: 0x80003, f_count: 1, f_op: 1 }))
          kernel.set('file', file.file, member, value);
        kernel.set('inode', file.inode.address, 'i_size', PAGES * PAGE_SIZE);
        this.mm = kernel.allocate('mm_struct');
        this.context = kernel.allocate('kioctx');
        const table = kernel.allocate('kioctx_table');
        kernel.set('mm_struct', this.mm, 'ioctx_table', table);
        kernel.set('kioctx_table', table, 'nr', 4);
        const second = kernel.memberAddress('kioctx_table', table, 'table') + 8n;
        kernel.set('list_head', second, 'next', this.context);
        const active = kernel.memberAddress('kioctx', this.context, 'active_reqs');
        kernel.set('list_head', active, 'next', active);
        const places = { user_id: AT, mmap_base: AT, mmap_size: PAGES * PAGE_SIZE, nr_events: PLACES, id: 1 };
        const counts = { tail: 3, completed_events: 1, 'reqs_available.counter': PLACES - 12 };
        for (const [name, value] of Object.entries({ ...places, ...counts, aio_ring_file: file.file }))
          this.set(name, value);
        this.perCpu('cpu', 'aio_cpu', 'kioctx_cpu', [6, 4]);
        const data = kernel.allocate('percpu_ref_data');
        kernel.set('percpu_ref_data', data, 'count.counter', BIAS + 1n);
        this.set('reqs.data', data);
        this.perCpu('reqs.percpu_count_ptr', 'aio_reqs', 'list_head', [5, -4]);
        const ring = { id: 1, nr: PLACES, head: 2, tail: 3, magic: MAGIC };
        const head = kernel.physicalToVirtual((file.frames[0] ?? 0) * PAGE_SIZE);
        for (const [name, value] of Object.entries(ring)) kernel.set('aio_ring', head, name, value);
        this.mapped(this.mm);
        this.capture = new MadeProcesses(kernel, [PID]).context([PID]);
      }

      set(member: string, value: bigint | number): void {
        this.kernel.set('kioctx', this.context, member, value);
      }

      perCpu(member: string, name: string, structure: string, values: readonly number[]): void {
        const { kernel } = this;
        kernel.allocatePerCpu(name, structure);
        this.set(member, kernel.symbol(name));
        for (const [cpu, value] of values.entries()) {
          const bytes = Buffer.alloc(8);
          bytes.writeBigInt64LE(BigInt(value));
          kernel.write(kernel.perCpu(name, cpu), bytes);
        }
      }

      /** Has address spaces map the ring: a list of areas that is as good as a tree. */
      mapped(...spaces: readonly bigint[]): void {
        const { kernel } = this;
        const mapping = this.file.inode.i_mapping;
        let parent = 0n;
        for (const mm of spaces) {
          const area = kernel.allocate('vm_area_struct');
          const node = kernel.memberAddress('vm_area_struct', area, 'shared.rb');
          kernel.set('vm_area_struct', area, 'vm_mm', mm);
          kernel.set('vm_area_struct', area, 'vm_flags', WRITABLE);
          kernel.set('vm_area_struct', area, 'shared.rb.__rb_parent_color', parent);
          if (parent === 0n) kernel.set('address_space', mapping, 'i_mmap.rb_root.rb_node', node);
          else kernel.set('rb_node', parent, 'rb_right', node);
          parent = node;
        }
      }

      map(over: { shared?: boolean; prot?: number; locked?: boolean } = {}): ReturnType<typeof mapAioRing> {
        const file = fileAt(this.kernel, this.file.file) ?? assert.fail();
        const place = { start: AT, end: AT + PAGES * PAGE_SIZE, offsetBytes: 0 };
        const use = { pid: PID, shared: true, openFlags: 2, prot: 3, locked: false, ...place, ...over };
        return mapAioRing(this.capture, file, use);
      }

      problems(...vmas: readonly Vma[]): string[] {
        return aioProblems(this.kernel, this.kernel.bind(mmStruct).at(this.mm), vmas);
      }
    }

    const area = (start = AT, pages = PAGES): Vma => ({
      ...{ start, end: start + pages * PAGE_SIZE, kind: 'aio-ring', prot: 3, offsetBytes: 0, advice: [] },
      ...{ growsDown: false, heap: false, stack: false, hugetlb: false, locked: false, noReserve: false },
      runs: listedRuns([]),
    });
    const CONTEXT = 'has an asynchronous I/O context (io_setup)';

    test('come back with the area that is their ring', () => {
      const made = new Made();
      const [first, second] = [made.map(), made.map()];
      assert.ok(first.kind === 'aio-ring' && second.kind === 'aio-ring' && first.shmid !== second.shmid);
      assert.deepEqual(made.problems(area()), []);
      assert.deepEqual(made.capture.notes.size, 0);
      assert.deepEqual(
        [...ringAreaPages(made.kernel, made.file.file, AT)].map(({ address, physical }) => [
          address,
          physical,
        ]),
        [[AT, (made.file.frames[0] ?? 0) * PAGE_SIZE]],
      );
      made.map({ locked: true });
      assert.match(made.capture.notes.get(PID)?.join() ?? '', /ring .* is no longer locked/);
    });

    test('are counted over all CPUs', () => {
      const { kernel, context } = new Made();
      const reqs = kernel.memberAddress('kioctx', context, 'reqs');
      assert.equal(percpuRefCount(kernel, reqs), 2n);
      // What is going is counted in one place.
      const address = kernel.memory.pointer(kernel.memberAddress('percpu_ref', reqs, 'data'));
      kernel.set('percpu_ref', reqs, 'percpu_count_ptr', kernel.symbol('aio_reqs') | 1n);
      kernel.set('percpu_ref_data', address, 'count.counter', 7);
      assert.equal(percpuRefCount(kernel, reqs), 7n);
    });

    test('are refused with requests in flight', () => {
      const made = new Made();
      made.set('reqs_available.counter', PLACES - 13);
      assert.deepEqual(made.problems(area()), [`${CONTEXT} with requests in flight`]);
    });

    test('are refused if the ring is not mapped as a whole and by their own process alone', () => {
      const made = new Made();
      const notWhole = `${CONTEXT} whose ring is not mapped as a whole`;
      assert.deepEqual(made.problems(), [notWhole]);
      assert.deepEqual(made.problems(area(AT, 1)), [notWhole]);
      assert.deepEqual(made.problems(area(), area(AT + 0x10_0000)), [`${CONTEXT} that is not its own`]);
      assert.throws(() => made.map({ prot: 1 }), {
        reason: `${CONTEXT} whose ring is mapped in another way`,
      });
      assert.throws(() => made.map({ shared: false }), /mapped in another way/);
      made.mapped(made.mm, made.kernel.allocate('mm_struct'));
      assert.throws(() => made.map(), { reason: `${CONTEXT} whose ring is mapped more than once` });
    });

    test('are refused if they cannot be read, or have lost a page', () => {
      const made = new Made();
      made.kernel.set('inode', made.file.inode.address, 'i_size', 3 * PAGE_SIZE);
      assert.match(made.problems(area()).join(), /that cannot be read: .* has 2 pages for its 12288 bytes/);
      assert.throws(() => made.map(), /has 2 pages for its 12288 bytes/);
    });

    test('have given something already to who waits for several events', () => {
      const { kernel } = new Made();
      const whose = { task: { address: 0n }, cpu: undefined };
      for (const call of ['io_getevents', 'io_pgetevents'])
        assert.deepEqual(
          [0n, 1n, 2n, -1n].map((least) => waitActivity(kernel, whose, call, [0n, least], 'asleep')),
          ['asleep', 'asleep', 'running', 'asleep'],
        );
    });
  });
}
