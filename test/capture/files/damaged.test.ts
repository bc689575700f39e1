// Damages the memory that a capture of files looks at, in many ways, and asks that every end is a typed one,
// in time.
import assert from 'node:assert/strict';
import { afterEach, suite, test } from 'node:test';
import fc from 'fast-check';
import { RecordingMemory } from '../../../lab/fixture/recording-memory.ts';
import type { FileTask } from '../../../src/capture/file-capture.ts';
import { unwrittenFiles } from '../../../src/capture/files/content/write-back.ts';
import { CaptureContext } from '../../../src/capture/files/context.ts';
import { captureFiles, FileRefusal } from '../../../src/capture/files/index.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { forEachTask } from '../../../src/linux/pid.ts';
import { readClocks } from '../../../src/linux/readers/clocks.ts';
import { listTasks } from '../../../src/linux/readers/task-list.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { FileDescriptor } from '../../../src/model/file.ts';
import type { Repair } from '../../../src/model/verdict.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { VmcoreError } from '../../../src/vmcore/errors.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { openFile } from '../../../src/vmcore/mapping.ts';
import { kernelFrom, openSource } from '../../../src/vmcore/open.ts';
import { processorMilliseconds } from '../../processor-time.ts';
import { searchOf } from '../../search.ts';
import { dumpPath, releases } from '../../vmcore/fixtures.ts';

const SEARCH = searchOf(125);
/** A capture of the fixture takes a few milliseconds. */
const LIMIT_MILLISECONDS = 5000;

/** Eight bytes of a frame, as they have become. */
const damages = (frames: readonly number[]) =>
  fc.array(
    fc.record({
      frame: fc.constantFrom(...frames),
      word: fc.nat(PAGE_SIZE / 8 - 1),
      bytes: fc.oneof(
        fc.uint8Array({ minLength: 8, maxLength: 8 }),
        fc.constant(new Uint8Array(8)),
        fc.constant(new Uint8Array(8).fill(0xff)),
      ),
    }),
    { minLength: 1, maxLength: 12 },
  );

function userTasks(kernel: Kernel): FileTask[] {
  return [...forEachTask(kernel)]
    .map((address) => taskAt(kernel, address))
    .filter(({ files, mm }) => files !== 0n && mm !== 0n)
    .map((task, i) => ({ pid: task.pid, task: task.address, filesId: i + 1 }));
}

/**
 * What was captured: reasons against processes, and the descriptors of each as `FD TYPE`, with the watches of
 * an epoll.
 */
interface Captured {
  readonly reasons: ReadonlyMap<number, readonly string[]>;
  readonly notes: ReadonlyMap<number, readonly string[]>;
  readonly repairs: ReadonlyMap<number, readonly Repair[]>;
  readonly descriptors: ReadonlyMap<number, readonly string[]>;
}

function captureAll(kernel: Kernel): Captured {
  const tasks = userTasks(kernel);
  const capture = captureFiles(new CaptureContext(kernel, readClocks(kernel), tasks, listTasks(kernel)));
  capture.group(new Set(tasks.map(({ pid }) => pid)));
  const descriptors = new Map(
    tasks.map(({ pid }) => {
      const { tables, files } = capture.group(new Set([pid])).files;
      // Not close-on-exec: the kernel has nothing to hold that bit against.
      const show = ({ fd, fileId }: FileDescriptor): string => {
        const file = files.find(({ id }) => id === fileId);
        const watches = file?.type === 'eventpoll' ? file.targets.map((target) => target.fd).toSorted() : [];
        return `${fd} ${file?.type} ${watches}`;
      };
      return [pid, tables.flatMap((table) => table.descriptors.map(show))] as const;
    }),
  );
  return { reasons: capture.refusals, notes: capture.notes, repairs: capture.repairs, descriptors };
}

/** A process that lost or gained a descriptor or a watch has a reason or a note that it did not have. */
function assertSame(undamaged: Captured, damaged: Captured, what = 'damage'): void {
  for (const [pid, descriptors] of damaged.descriptors) {
    const says = ({ reasons, notes }: Captured) => [reasons, notes].map((of) => (of.get(pid) ?? []).join());
    const before = undamaged.descriptors.get(pid);
    // A kernel thread whose damaged task_struct looks like a process's.
    if (before === undefined) continue;
    if (JSON.stringify(says(undamaged)) !== JSON.stringify(says(damaged))) continue;
    assert.deepEqual(descriptors, before, `process ${pid}, ${what}`);
  }
}

/**
 * What may stand in an open file's `f_op`: nonsense, and the operations of each kind that is brought back.
 */
function operationsOf(kernel: Kernel): bigint[] {
  const kinds = 'pipefifo socket_file tty hung_up_tty eventfd eventpoll timerfd signalfd inotify'.split(' ');
  const symbols = kinds.map((kind) => (kind === 'socket_file' ? 'socket_file_ops' : `${kind}_fops`));
  return [1n << 56n, ...symbols.map((symbol) => kernel.symbol(symbol))];
}

for (const release of releases) {
  suite(`damaged files of ${release}`, () => {
    const file = openFile(dumpPath(release));
    const source = openSource(file);
    const memory = new RecordingMemory(source.physical);
    // One kernel for all that is damaged, with every structure bound. Only what a capture reads again each
    // time is damaged, so that none of it is known from before.
    const kernel = kernelFrom(file, { ...source, physical: memory });
    const framesOf = (look: () => void): number[] => {
      look();
      memory.touched.clear();
      look();
      return [...memory.touched];
    };
    const frames = framesOf(() => captureAll(kernel));
    const undamaged = captureAll(kernel);
    const reasons = [...undamaged.reasons.values()].flat();
    afterEach(() => memory.restore());

    test('reasons are sentences that name their descriptor', () => {
      assert.ok(reasons.length > 0);
      for (const reason of reasons) assert.match(reason, /^(has|is|maps|runs|shares) .*\(fd \d+\)$/);
    });

    /** The process with the most descriptors. */
    const { pid, task, slots } = userTasks(kernel)
      .map((one) => ({ ...one, slots: fdSlots(kernel, taskAt(kernel, one.task).files) }))
      .reduce((most, one) => (one.slots.length > most.slots.length ? one : most));
    const at = (structure: string, member: string): bigint =>
      BigInt(kernel.layouts.member(structure, member)?.offsetBytes ?? 0);

    test('refuse who lost a descriptor, and do not just miss it', () => {
      const table = kernel.memory.pointer(taskAt(kernel, task).files + at('files_struct', 'fdt'));
      const slot = kernel.memory.pointer(table + at('fdtable', 'fd')) + BigInt((slots[1]?.fd ?? 0) * 8);
      memory.replace(kernel.memory.translate(slot), Buffer.alloc(8));
      const lost = (captureAll(kernel).reasons.get(pid) ?? []).join('; ');
      assert.match(lost, /descriptors without a file \(1\), of which its system calls can be opening 0/);
    });

    test('a count of references that cannot be true is not believed, and costs nobody the file', () => {
      const holder = undamaged.descriptors.entries().find(([, files]) => files.length > 0);
      const [owner = 0, files = []] = holder ?? [];
      const fd = Number.parseInt(files[0] ?? '', 10);
      const { task: address = 0n } = userTasks(kernel).find((one) => one.pid === owner) ?? {};
      const slot = fdSlots(kernel, taskAt(kernel, address).files).find((one) => one.fd === fd);
      const count = Buffer.alloc(8);
      count.writeBigUInt64LE((1n << 40n) + 1n);
      memory.replace(kernel.memory.translate((slot?.file ?? 0n) + at('file', 'f_count')), count);
      const captured = captureAll(kernel);
      assert.deepEqual(captured.descriptors.get(owner), files);
      assert.deepEqual(captured.reasons.get(owner), undamaged.reasons.get(owner));
      assert.deepEqual(captured.repairs.get(owner), [
        { what: 'references to an open file', used: 'the file tables', instead: 'f_count (1099511627777)' },
      ]);
    });

    test('are never taken for files of another kind without a word', () => {
      // One of each kind.
      const kindOf = new Map(
        undamaged.descriptors.get(pid)?.map((line) => [Number.parseInt(line, 10), line.split(' ')[1]]),
      );
      const kinds = new Map(slots.map(({ fd, file }) => [kindOf.get(fd), { fd, file }]));
      const put = (address: bigint, value: bigint): void => {
        const bytes = Buffer.alloc(8);
        bytes.writeBigUInt64LE(value);
        memory.replace(kernel.memory.translate(address), bytes);
      };
      for (const { fd, file } of kinds.values()) {
        const address = file + at('file', 'f_op');
        const own = kernel.memory.pointer(address);
        for (const operations of operationsOf(kernel).filter((other) => other !== own)) {
          put(address, operations);
          const what = `descriptor ${fd} with f_op ${operations.toString(16)}`;
          assertSame(undamaged, captureAll(kernel), what);
        }
        put(address, own);
      }
    });

    /** Looks at memory that is damaged in many ways: each end is a good one or a typed error, in time. */
    function search(frames: readonly number[], look: () => void): void {
      fc.assert(
        fc.property(damages(frames), (changes) => {
          memory.restore();
          for (const { frame, word, bytes } of changes) memory.replace(frame * PAGE_SIZE + word * 8, bytes);
          const started = processorMilliseconds();
          try {
            look();
          } catch (error) {
            if (!(error instanceof VmcoreError || error instanceof FileRefusal)) throw error;
          }
          assert.ok(processorMilliseconds() - started < LIMIT_MILLISECONDS);
        }),
        SEARCH,
      );
    }

    test('end in the same descriptors, a reason or a typed error', () => {
      search(frames, () => assertSame(undamaged, captureAll(kernel)));
    });

    test('end in files to be written back, or in a typed error', () => {
      const look = (): void => {
        for (const _ of unwrittenFiles(kernel, []));
      };
      search(framesOf(look), look);
    });
  });
}
