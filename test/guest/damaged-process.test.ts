// Boots one guest with processes of several kinds, dumps its memory, and captures them from copies of the
// dump that are damaged where a process has its memory, files and threads: it does not come back, and nobody
// else is harmed.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { RecordingMemory } from '../../lab/fixture/recording-memory.ts';
import { captureProcesses } from '../../src/capture/index.ts';
import { type CapturedTmpfs, captureTmpfs } from '../../src/capture/tmpfs-files.ts';
import { dentryChildren, dentryName } from '../../src/linux/dcache.ts';
import { epitems } from '../../src/linux/eventpoll.ts';
import { fdSlots } from '../../src/linux/fdtable.ts';
import { fileAt } from '../../src/linux/file.ts';
import { VM } from '../../src/linux/mm.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { forEachThread } from '../../src/linux/pid.ts';
import { fileKind } from '../../src/linux/readers/file-kind.ts';
import { readMounts } from '../../src/linux/readers/mount-table.ts';
import { forEachVma } from '../../src/linux/readers/vma.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { CaptureResult } from '../../src/model/group.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import {
  bootDamageScene,
  type DamageScene,
  groupsOf,
  type Patch,
  reasonsOf,
  repairsOf,
  ZERO,
} from './damage-scene.ts';
import { release, scratchDirectory } from './harness.ts';
import { silentDifferences } from './same-capture.ts';

suite(`damaged processes of ${release}`, () => {
  let scene: DamageScene;
  const scratch = scratchDirectory();
  let source: DamageScene['source'];
  let kernel: Kernel;
  let pids: DamageScene['pids'];
  let whole: CaptureResult;
  let frames: readonly number[];

  const open = (memory: RecordingMemory): Kernel => scene.open(memory);
  const capture = (of: Kernel): CaptureResult => scene.capture(of);
  const withDamage = (...patches: readonly Patch[]): Kernel => scene.withDamage(...patches);
  const damaged = (...patches: readonly Patch[]): CaptureResult => scene.damaged(...patches);
  const task = (pid: number): bigint => scene.task(pid);
  const member = (structure: string, path: string): bigint => scene.member(structure, path);

  before(async () => {
    const booted = await bootDamageScene('damaged-process', scratch.path);
    scene = booted.scene;
    ({ source, kernel, pids, whole, frames } = scene);
    await booted.guest.down();
  });
  after(() => scratch.remove());

  const listHead = (): bigint => kernel.symbol('init_task') + member('task_struct', 'tasks');
  /** Areas of the watcher. */
  const areas = () => [
    ...forEachVma(kernel, kernel.bind(mmStruct).at(taskAt(kernel, task(pids.watcher)).mm)),
  ];
  const fdtable = (pid: number) =>
    kernel.memory.pointer(taskAt(kernel, task(pid)).files + member('files_struct', 'fdt'));
  const othersThan = (pid: number) =>
    groupsOf(whole).filter((group) => !group.split('+').includes(String(pid)));
  const refusesOnly = (pid: number, result: CaptureResult, reason: RegExp): void => {
    assert.match(reasonsOf(result, pid), reason);
    assert.deepEqual(groupsOf(result), othersThan(pid));
    assert.deepEqual(silentDifferences(whole, result), []);
  };

  test('memory that an unprotected process maps as well is refused', () => {
    const pair = groupsOf(whole).find((group) => group.startsWith(`${pids.watcher}+`)) ?? '';
    const child = Number(pair.split('+')[1]);
    const alone = captureProcesses(kernel, { roots: [child], includeDescendants: false });
    const reason = new RegExp(`memory that PID ${pids.watcher} \\(python3\\) maps as well`);
    assert.match(reasonsOf(alone, child), reason);
  });

  test('of a directory on tmpfs that has lost its entries, or one of them, that is told', () => {
    const point = readMounts(kernel).points.find(({ path }) => path === '/dev/shm') ?? assert.fail();
    const files = (of: Kernel): CapturedTmpfs => captureTmpfs(of, [point], [point], new Set());
    const paths = ({ files: { filesToMake } }: CapturedTmpfs) => filesToMake.map(({ path }) => path).sort();
    const found = files(kernel);
    assert.deepEqual(found.problems, []);
    assert.deepEqual(
      paths(found),
      ['1', '2', '3'].map((name) => `/dev/shm/kept/${name}`),
    );
    const kept = [...dentryChildren(kernel, point.mount.mnt_root, 100)].find(
      (dentry) => dentryName(kernel, dentry) === 'kept',
    );
    const directory = kept?.address ?? assert.fail();
    const isHlist = kernel.hasMember('dentry', 'd_children');
    const head = directory + member('dentry', isHlist ? 'd_children' : 'd_subdirs');
    const self = Buffer.alloc(16);
    self.writeBigUInt64LE(head, 0);
    self.writeBigUInt64LE(head, 8);
    const emptied = files(withDamage([head, isHlist ? ZERO : self]));
    assert.deepEqual([paths(emptied), emptied.problems], [[], ['/dev/shm: 3 files are in no directory']]);
    const [, second] = [...dentryChildren(kernel, directory, 100)];
    const link = (second?.address ?? 0n) + member('dentry', isHlist ? 'd_sib' : 'd_child');
    const cut = files(withDamage([link, Buffer.alloc(8, 0x41)]));
    assert.equal(paths(cut).length, 2);
    assert.match(
      cut.problems.join('\n'),
      /^\/dev\/shm\/kept cannot be read: .*\n.*: 1 files are in no directory$/,
    );
  });

  test('a page that shared memory has lost is no page of zeros', () => {
    const shared = areas().find(
      // Python maps a file of the C library, too, shared but not writable.
      (area) =>
        area.vm_file !== 0n && [VM.mayShare, VM.write].every((flag) => (area.vm_flags.low & flag) !== 0),
    );
    const mapping = kernel.memory.pointer((shared?.vm_file ?? 0n) + member('file', 'f_mapping'));
    const node = kernel.memory.pointer(mapping + member('address_space', 'i_pages.xa_head')) & ~3n;
    const slot = node + member('xa_node', 'slots') + 8n;
    refusesOnly(pids.watcher, damaged([slot, ZERO]), /has 2 entries and counts 3/);
    const counted = damaged([slot, ZERO], [node + member('xa_node', 'count'), Buffer.from([2])]);
    refusesOnly(pids.watcher, counted, /holds 2 pages but counts 3/);
  });

  test('a descriptor that the table has lost is not one that is being opened', () => {
    const slot = (pid: number, fd: bigint) =>
      kernel.memory.pointer(fdtable(pid) + member('fdtable', 'fd')) + fd * 8n;
    refusesOnly(
      pids.sleeper,
      damaged([slot(pids.sleeper, 1n), ZERO]),
      /descriptors without a file \(1\), of which its system calls can be opening 0/,
    );
    refusesOnly(
      pids.watcher,
      damaged([slot(pids.watcher, 0n), ZERO]),
      /descriptors without a file \(0, \d+\), of which its system calls can be opening 1/,
    );
  });

  test('an epoll that is not what its file says, and a watch that is not what it says or is lost, keep the process from coming back', () => {
    const file = fdSlots(kernel, taskAt(kernel, task(pids.watcher)).files)
      .flatMap((slot) => (slot.file === 0n ? [] : (fileAt(kernel, slot.file) ?? [])))
      .find(({ f_op }) => fileKind(kernel, f_op) === 'eventpoll');
    const eventpoll = file?.private_data ?? 0n;
    const item = epitems(kernel, file?.address ?? 0n, eventpoll)[0];
    const ep = (item?.address ?? 0n) + member('epitem', 'ep');
    const stranger = damaged([ep, source.physical.view(kernel.memory.translate(listHead()), 8)]);
    refusesOnly(pids.watcher, stranger, /eventpoll at 0x.* holds the watch at 0x.* of another one/);
    const zeroed = damaged([eventpoll, Buffer.alloc(kernel.sizeOf('eventpoll'))]);
    refusesOnly(pids.watcher, zeroed, /eventpoll at 0x.* says that it is of the file at 0x0/);
    const emptied = damaged([eventpoll + member('eventpoll', 'rbr'), ZERO]);
    refusesOnly(pids.watcher, emptied, /eventpoll at 0x.* has lost the watch at 0x/);
  });

  test('a count of references and a flag of an area that something else contradicts are not believed', () => {
    const file = fdSlots(kernel, taskAt(kernel, task(pids.watcher)).files)
      .flatMap((slot) => (slot.file === 0n ? [] : (fileAt(kernel, slot.file) ?? [])))
      .find(({ f_op }) => fileKind(kernel, f_op) === 'eventpoll');
    const count = Buffer.from([1, 0, 0, 0, 0, 1, 0, 0]);
    const counted = damaged([(file?.address ?? 0n) + member('file', 'f_count'), count]);
    assert.deepEqual(groupsOf(counted), groupsOf(whole));
    assert.deepEqual(repairsOf(counted, pids.watcher), ['references to an epoll: the file tables']);
    const area = areas().find(({ vm_file, vm_ops }) => vm_file === 0n && vm_ops === 0n);
    const flags = Buffer.alloc(8);
    flags.writeUInt32LE(((area?.vm_flags.low ?? 0) | VM.uffdMissing | VM.io) >>> 0, 0);
    flags.writeUInt32LE(area?.vm_flags.high ?? 0, 4);
    const flagged = damaged([(area?.address ?? 0n) + member('vm_area_struct', 'vm_flags'), flags]);
    assert.deepEqual(groupsOf(flagged), groupsOf(whole));
    assert.deepEqual(
      repairsOf(flagged, pids.watcher).map((repair) => repair.replace(/^.*: /, '')),
      ['vm_userfaultfd_ctx, which is NULL', 'vm_file and vm_ops, which say that it is anonymous'],
    );
  });

  test('an area that the maple tree has lost keeps its process from coming back', () => {
    const area = areas().find(({ vm_file }) => vm_file !== 0n);
    const pointer = Buffer.alloc(8);
    pointer.writeBigUInt64LE(area?.address ?? 0n);
    const memory = new RecordingMemory(source.physical);
    for (const frame of frames) {
      const at = Buffer.from(source.physical.view(frame * PAGE_SIZE, PAGE_SIZE)).indexOf(pointer);
      if (at >= 0) memory.replace(frame * PAGE_SIZE + at, ZERO);
    }
    refusesOnly(pids.watcher, capture(open(memory)), /memory areas of \d+ pages, but the kernel counted/);
  });

  test('a thread that the list has lost keeps its process from coming back', () => {
    const [first = 0n, lost = 0n, next] = [...forEachThread(kernel, task(pids.state))];
    assert.notEqual(next, undefined);
    const at = member('task_struct', 'thread_node');
    const copy = (from: bigint) => Buffer.from(source.physical.view(kernel.memory.translate(from), 8));
    const result = damaged([first + at, copy(lost + at)], [(next ?? 0n) + at + 8n, copy(lost + at + 8n)]);
    refusesOnly(pids.state, result, /live threads on its list, but the kernel counted/);
  });
});
