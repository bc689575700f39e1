// System V shared memory in a kernel made by hand: who it comes back with, and who cannot have it again.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { EndedTasks, MappingUse } from '../../../src/capture/file-capture.ts';
import { CaptureContext } from '../../../src/capture/files/context.ts';
import type { GroupSelection } from '../../../src/capture/files/kind.ts';
import { mapSegment, segmentsOf, sharedSegments } from '../../../src/capture/ipc/segments.ts';
import { fileAt } from '../../../src/linux/file.ts';
import type { SharedSegment } from '../../../src/model/segment.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { type MadeFile, makeFile } from '../../vmcore/made-file.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const AT = 0x7f00_0000_0000;
/** VM_READ, VM_WRITE, VM_SHARED, VM_MAYREAD, VM_MAYWRITE, VM_MAYSHARE; and of an area for reading. */
const WRITABLE = 0xbbn;
const READABLE = 0x91n;
const [MAKER, USER, OUTSIDER] = [100, 101, 102];
const ID = 5 * 32768;

for (const release of releases) {
  suite(`System V shared memory of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      readonly file: MadeFile;
      readonly segment: bigint;
      readonly #tasks = new Map<number, { task: bigint; mm: bigint; pid: bigint }>();
      #context: CaptureContext | undefined;
      #ended: EndedTasks | undefined;

      /** One segment of three pages and a bit, and three processes, of which the last is not protected. */
      constructor() {
        const { kernel } = this;
        this.file = makeFile(kernel, 'tmpfs', [
          { index: 0, fill: 0xa0, flags: ['uptodate'] },
          { index: 2, fill: 0xa2, flags: ['uptodate', 'dirty'] },
        ]);
        for (const [member, value] of Object.entries({ f_mode: 0x80003, f_count: 1, f_op: 1 }))
          kernel.set('file', this.file.file, member, value);
        kernel.set('inode', this.file.inode.address, 'i_ino', ID);
        kernel.set('inode', this.file.inode.address, 'i_size', 3 * PAGE_SIZE + 100);
        const namespace = kernel.allocate('ipc_namespace');
        kernel.symbols.set('init_ipc_ns', namespace);
        this.segment = kernel.allocate('shmid_kernel');
        const entry = kernel.memberAddress('shmid_kernel', this.segment, 'shm_perm');
        kernel.set('ipc_namespace', namespace, 'ids[2].ipcs_idr.idr_rt.xa_head', entry);
        const members = { id: ID, key: 0x4f57_0001, uid: 3, gid: 4, cuid: 1, cgid: 2, mode: 0o640 };
        for (const [name, value] of Object.entries(members)) this.set(`shm_perm.${name}`, value);
        this.set('shm_file', this.file.file);
        this.set('shm_segsz', 3 * PAGE_SIZE + 100);
        for (const pid of [MAKER, USER, OUTSIDER]) this.#process(pid);
      }

      set(member: string, value: bigint | number): void {
        this.kernel.set('shmid_kernel', this.segment, member, value);
      }

      #process(pid: number): void {
        const { kernel } = this;
        const [task, mm, number] = ['task_struct', 'mm_struct', 'pid'].map((name) => kernel.allocate(name));
        if (task === undefined || mm === undefined || number === undefined) return;
        kernel.set('mm_struct', mm, 'mm_users.counter', 1);
        for (const [name, value] of Object.entries({ pid, tgid: pid, mm, thread_pid: number }))
          kernel.set('task_struct', task, name, value);
        this.#tasks.set(pid, { task, mm, pid: number });
      }

      /** As if a process had made the segment. */
      madeBy(pid: number): void {
        this.set('shm_cprid', this.#tasks.get(pid)?.pid ?? 0n);
      }

      /** As if a process had been ending. */
      ended(pid: number): void {
        const { task, mm } = this.#tasks.get(pid) ?? assert.fail();
        this.#ended = { leaders: new Set([task]), threads: new Set([task]), spaces: new Set([mm]) };
      }

      /** Has processes attach it: a list of areas that is as good as a tree. */
      attach(...areas: readonly (readonly [pid: number, flags: bigint])[]): void {
        const { kernel } = this;
        const mapping = this.file.inode.i_mapping;
        let parent = 0n;
        for (const [pid, flags] of areas) {
          const area = kernel.allocate('vm_area_struct');
          const node = kernel.memberAddress('vm_area_struct', area, 'shared.rb');
          kernel.set('vm_area_struct', area, 'vm_mm', this.#tasks.get(pid)?.mm ?? 0n);
          kernel.set('vm_area_struct', area, 'vm_flags', flags);
          kernel.set('vm_area_struct', area, 'shared.rb.__rb_parent_color', parent);
          if (parent === 0n) kernel.set('address_space', mapping, 'i_mmap.rb_root.rb_node', node);
          else kernel.set('rb_node', parent, 'rb_right', node);
          parent = node;
        }
        this.set('shm_nattch', areas.length);
      }

      get context(): CaptureContext {
        if (this.#context !== undefined) return this.#context;
        const all = [...this.#tasks].map(([pid, { task }]) => ({ pid, task, filesId: pid }));
        const list = { tasks: all.map(({ task }) => task), lost: [], damage: [], isComplete: true };
        const clocks = { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n };
        const own = all.filter(({ pid }) => pid !== OUTSIDER);
        this.#context = new CaptureContext(this.kernel, clocks, own, list, { ended: this.#ended });
        sharedSegments.collect(this.#context);
        return this.#context;
      }

      /** What an area of a process becomes. */
      map(pid: number, over: Partial<MappingUse> = {}): ReturnType<typeof mapSegment> {
        const file = fileAt(this.kernel, this.file.file) ?? assert.fail();
        const place = { start: AT, end: AT + 4 * PAGE_SIZE, offsetBytes: 0 };
        const use = { pid, shared: true, openFlags: 2, prot: 3, locked: false, ...place, ...over };
        return mapSegment(this.context, file, use);
      }

      group(...pids: readonly number[]): SharedSegment[] {
        const { context } = this;
        const nothing = { namespace: 0n, files: [], pathFiles: [], shmids: new Set<number>(), paths: [] };
        const selection: GroupSelection = { context, pids: new Set(pids), ...nothing };
        return segmentsOf(selection);
      }
    }

    test('comes back with those who have it attached, who come back together', () => {
      const made = new Made();
      made.attach([MAKER, WRITABLE], [USER, READABLE]);
      assert.deepEqual(made.context.edges, [{ pids: [MAKER, USER], why: 'shared memory' }]);
      assert.deepEqual(made.map(MAKER), { kind: 'segment', segment: { id: ID, isWritable: true } });
      assert.deepEqual(made.map(USER, { openFlags: 0, prot: 1 }), {
        kind: 'segment',
        segment: { id: ID, isWritable: false },
      });
      const [segment = assert.fail(), ...others] = made.group(MAKER, USER);
      const { runs, ...rest } = segment;
      assert.deepEqual(rest, {
        ...{ id: ID, key: 0x4f57_0001, uid: 3, gid: 4, cuid: 1, cgid: 2, mode: 0o640 },
        sizeBytes: 3 * PAGE_SIZE + 100,
        ...{ isRemoved: false, isLocked: false, isNotReserved: false, attachments: 2 },
      });
      assert.deepEqual(
        [...runs].map(({ address, pages }) => [address / PAGE_SIZE, pages]),
        [
          [0, 1],
          [2, 1],
        ],
      );
      assert.deepEqual([others, made.group(OUTSIDER)], [[], []]);
      assert.deepEqual([...made.context.refusals], []);
      assert.deepEqual(sharedSegments.losses(made.context), []);
    });

    test('is no longer of a process that was ending, whose areas the kernel still has', () => {
      const made = new Made();
      made.attach([MAKER, WRITABLE], [OUTSIDER, WRITABLE]);
      made.ended(OUTSIDER);
      assert.equal(made.map(MAKER).kind, 'segment');
      assert.deepEqual(
        made.group(MAKER).map(({ attachments }) => attachments),
        [1],
      );
      assert.deepEqual([...made.context.refusals], []);
    });

    test('comes back with who has made it if nobody has it attached', () => {
      const made = new Made();
      made.madeBy(MAKER);
      assert.deepEqual(
        made.group(MAKER).map(({ id, attachments }) => [id, attachments]),
        [[ID, 0]],
      );
      assert.deepEqual(made.group(USER), []);
    });

    test('is lost if who uses it does not come back', () => {
      const made = new Made();
      made.madeBy(MAKER);
      assert.match(sharedSegments.losses(made.context).join(), / of user 3 went with the kernel$/);
      made.group(MAKER);
      assert.deepEqual(sharedSegments.losses(made.context), []);
    });

    test('is lost if no protected process uses it, and the report tells its owner', () => {
      const made = new Made();
      made.madeBy(OUTSIDER);
      made.attach([OUTSIDER, WRITABLE]);
      assert.deepEqual(sharedSegments.losses(made.context), [
        `the System V shared memory segment ${ID} of user 3 went with the kernel`,
      ]);
      assert.deepEqual([made.group(MAKER, USER), [...made.context.refusals]], [[], []]);
    });

    test('is refused to who has it attached, or made it, together with a process that is not protected', () => {
      const made = new Made();
      made.madeBy(MAKER);
      made.attach([USER, WRITABLE], [OUTSIDER, READABLE]);
      const why = `has memory that PID ${OUTSIDER} () maps as well, which is not protected`;
      assert.deepEqual(
        [...made.context.refusals],
        [[MAKER, [`uses the System V shared memory segment ${ID}, which ${why}`]]],
      );
      assert.throws(() => made.map(USER), { reason: why });
    });

    test('keeps that it was removed and locked, and has no key then', () => {
      const made = new Made();
      made.set('shm_perm.mode', 0o3600);
      made.set('shm_perm.key', 0);
      made.attach([USER, WRITABLE]);
      made.map(USER);
      const [segment] = made.group(USER);
      assert.deepEqual(
        [segment?.mode, segment?.key, segment?.isRemoved, segment?.isLocked],
        [0o600, 0, true, true],
      );
    });

    test('may be attached in pieces with other rights each, and more than once', () => {
      const made = new Made();
      made.attach([USER, WRITABLE], [USER, WRITABLE], [USER, WRITABLE]);
      const part = (from: number, to: number, at: number, prot = 3) =>
        made.map(USER, {
          start: at + from * PAGE_SIZE,
          end: at + to * PAGE_SIZE,
          offsetBytes: from * PAGE_SIZE,
          prot,
        });
      part(0, 1, AT);
      part(1, 4, AT, 1);
      part(0, 4, AT + 4 * PAGE_SIZE);
      assert.equal(made.group(USER)[0]?.attachments, 2);
    });

    test('is refused if a part of it is detached', () => {
      for (const [from, to] of [
        [0, 3],
        [1, 4],
      ] as const) {
        const made = new Made();
        made.attach([USER, WRITABLE]);
        made.map(USER, { start: AT, end: AT + (to - from) * PAGE_SIZE, offsetBytes: from * PAGE_SIZE });
        assert.throws(() => made.group(USER), {
          reason: `has only a part of the System V shared memory segment ${ID} attached`,
        });
      }
    });

    test('is refused where it cannot be attached again as it was', () => {
      const made = new Made();
      made.attach([USER, WRITABLE]);
      const what = `the System V shared memory segment ${ID}`;
      assert.throws(() => made.map(USER, { prot: 7 }), { reason: `has ${what} attached for execution` });
      assert.throws(() => made.map(USER, { shared: false }), { reason: `has a private mapping of ${what}` });
      assert.throws(() => made.map(MAKER), /that the kernel does not know it to map/);
      made.map(USER, { locked: true });
      assert.deepEqual(made.context.notes.get(USER), [`${what} is attached and no longer locked (mlock)`]);
    });

    test('is damaged to whoever has it attached, also if another has made it', () => {
      const made = new Made();
      made.madeBy(MAKER);
      made.attach([USER, WRITABLE]);
      made.kernel.set('inode', made.file.inode.address, 'i_ino', 9);
      assert.throws(() => made.map(USER), { isDamage: true });
      const other = new Made();
      other.attach([USER, WRITABLE], [OUTSIDER, WRITABLE]);
      assert.throws(() => other.map(USER), { isDamage: false });
    });

    test('is refused if the kernel contradicts itself about it', () => {
      const cases: [RegExp, (made: Made) => void][] = [
        [
          /is damaged: its memory is of segment 9/,
          ({ kernel, file }) => kernel.set('inode', file.inode.address, 'i_ino', 9),
        ],
        [
          /is damaged: .* of 4096 bytes/,
          ({ kernel, file }) => kernel.set('inode', file.inode.address, 'i_size', PAGE_SIZE),
        ],
        [/is attached 2 times, of which 1 are known/, (made) => made.set('shm_nattch', 2)],
        [/cannot be read: reading file/, (made) => made.set('shm_file', 0)],
        [
          /cannot be read: .*i_mmap/,
          ({ kernel, file }) =>
            kernel.set('address_space', file.inode.i_mapping, 'i_mmap_writable.counter', 7),
        ],
      ];
      for (const [reason, damage] of cases) {
        const made = new Made();
        made.madeBy(MAKER);
        made.attach([USER, WRITABLE]);
        damage(made);
        assert.match(made.context.refusals.get(MAKER)?.join() ?? '', reason);
        assert.match(
          made.context.refusals.get(MAKER)?.join() ?? '',
          /^uses the System V shared memory segment \d+, which /,
        );
        assert.throws(() => made.map(USER), /FileRefusal|which|counts/);
        assert.deepEqual(made.group(MAKER, USER), []);
      }
    });
  });
}
