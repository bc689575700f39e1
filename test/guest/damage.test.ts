// Boots one guest with processes of several kinds, dumps its memory, and captures them from copies of the
// dump that are damaged at chosen places and at random ones: a damaged structure may harm those whose state
// follows from it, by name, and nobody else.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import fc from 'fast-check';
import { RecordingMemory } from '../../lab/fixture/recording-memory.ts';
import { captureProcesses } from '../../src/capture/index.ts';
import { type CapturedTmpfs, captureTmpfs } from '../../src/capture/tmpfs-files.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { currentTask, runningTasks } from '../../src/linux/current.ts';
import { dentryChildren, dentryName } from '../../src/linux/dcache.ts';
import { epitems } from '../../src/linux/eventpoll.ts';
import { fdSlots } from '../../src/linux/fdtable.ts';
import { fileAt } from '../../src/linux/file.ts';
import { VM } from '../../src/linux/mm.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid, forEachThread } from '../../src/linux/pid.ts';
import { readLog } from '../../src/linux/printk.ts';
import { fileKind } from '../../src/linux/readers/file-kind.ts';
import { readMounts } from '../../src/linux/readers/mount-table.ts';
import { forEachVma } from '../../src/linux/readers/vma.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { CaptureResult } from '../../src/model/group.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFile, type VmcoreFile } from '../../src/vmcore/mapping.ts';
import { kernelFrom, openKernel, openSource } from '../../src/vmcore/open.ts';
import { processorMilliseconds } from '../processor-time.ts';
import { logView, silentViews } from '../vmcore/views.ts';
import { bootTestGuest, release, scratchDirectory, type TestGuest } from './harness.ts';
import { silentDifferences } from './same-capture.ts';

/** More for a longer search: OTHERWORLD_FUZZ_RUNS=5000 */
const RUNS = Number(process.env.OTHERWORLD_FUZZ_RUNS ?? 150);
/** A capture of this guest takes a fifth of a second. */
const LIMIT_MILLISECONDS = 10_000;
const ZERO = Buffer.alloc(8);

const programs = join(import.meta.dirname, 'programs');

/** Bytes to put at a kernel address. */
type Patch = readonly [address: bigint, bytes: Uint8Array];

/** Pids of a capture, the processes of a group joined by `+`. */
function groupsOf({ groups }: CaptureResult): string[] {
  return groups.map(({ processes }) => processes.map(({ pid }) => pid).join('+'));
}

function reasonsOf({ refused }: CaptureResult, pid: number): string {
  return refused.find((refusal) => refusal.pid === pid)?.reasons.join('; ') ?? '';
}

suite(`a damaged kernel of ${release}`, () => {
  let guest: TestGuest;
  const scratch = scratchDirectory();
  let file: VmcoreFile;
  let source: ReturnType<typeof openSource>;
  let kernel: Kernel;
  /**
   * A program of many parts, a pipeline, a sleeper, a pair that shares memory, and a pair on a pipe of whom
   * only the first is protected.
   */
  let pids: { state: number; pipeline: number; sleeper: number; watcher: number; reader: number };
  let writer: number;
  let whole: CaptureResult;
  let frames: number[];

  const open = (memory: RecordingMemory): Kernel => kernelFrom(file, { ...source, physical: memory });
  const capture = (of: Kernel): CaptureResult =>
    captureProcesses(of, { roots: Object.values(pids), includeDescendants: true });
  const withDamage = (...patches: readonly Patch[]): Kernel => {
    const memory = new RecordingMemory(source.physical);
    for (const [address, bytes] of patches) memory.replace(kernel.memory.translate(address), bytes);
    return open(memory);
  };
  const damaged = (...patches: readonly Patch[]): CaptureResult => capture(withDamage(...patches));
  const task = (pid: number): bigint => findTaskByPid(kernel, pid) ?? 0n;
  const member = (structure: string, path: string): bigint =>
    BigInt(kernel.layouts.member(structure, path)?.offsetBytes ?? 0);
  const listHead = (): bigint => kernel.symbol('init_task') + member('task_struct', 'tasks');
  const pidTable = (): bigint =>
    kernel.symbol('init_pid_ns') +
    member('pid_namespace', 'idr') +
    member('idr', 'idr_rt') +
    member('xarray', 'xa_head');

  /**
   * Dumps the guest in a moment in which nobody computes on a CPU: that would be refused, however whole the
   * kernel is.
   */
  async function dumpAtRest(): Promise<void> {
    const dump = join(scratch.path, 'dump');
    for (let attempt = 1; attempt <= 5; attempt++) {
      await guest.vmcore(dump);
      file = openFile(dump);
      source = openSource(file);
      const { refused } = capture(open(new RecordingMemory(source.physical)));
      if (!refused.some(({ reasons }) => /was computing on|was on a CPU/.test(reasons.join()))) return;
      file.close();
    }
    assert.fail('in five dumps of the guest somebody computed on a CPU');
  }

  before(async () => {
    guest = await bootTestGuest('damage', { install: false });
    await guest.program('state');
    await guest.copyIn(join(programs, 'sequence.py'), '/root/sequence.py');
    await guest.copyIn(join(programs, 'watcher.py'), '/root/watcher.py');
    pids = {
      state: await guest.background('exec state /tmp/state'),
      pipeline: await guest.background(
        'python3 /root/sequence.py write | python3 /root/sequence.py check /tmp/sequence; true',
      ),
      sleeper: await guest.background('exec sleep 100000'),
      watcher: await guest.background('exec python3 /root/watcher.py'),
      reader: await guest.background('mkfifo /tmp/fifo; exec sleep 100000 < /tmp/fifo'),
    };
    writer = await guest.background('exec sleep 100000 > /tmp/fifo');
    await guest.sh('mkdir /dev/shm/kept; cd /dev/shm/kept; for i in 1 2 3; do echo $i >$i; done');
    await guest.until(
      'grep -q ok /tmp/state && [ -s /tmp/sequence ] && [ -S /tmp/watcher ] && [ $(pgrep -cx sleep) -ge 3 ]',
      60,
    );
    await dumpAtRest();
    await guest.background('sleep 1; echo c > /proc/sysrq-trigger');
    await guest.consoleSays(/end Kernel panic/, 120);
    await guest.vmcore(join(scratch.path, 'stopped'));
    await guest.down();
    const memory = new RecordingMemory(source.physical);
    kernel = open(memory);
    capture(kernel);
    memory.touched.clear();
    whole = capture(kernel);
    frames = [...memory.touched];
  });
  after(() => scratch.remove());

  test('whole, gives all but the one whose pipe somebody else holds', () => {
    assert.equal(whole.groups.length, 4, whole.refused.map(({ pid }) => reasonsOf(whole, pid)).join('\n'));
    assert.match(reasonsOf(whole, pids.reader), new RegExp(`a FIFO to PID ${writer} `));
  });

  test('dead without a crash kernel, has all CPUs that it stopped, what they ran, and what they counted', () => {
    const stopped = openKernel(join(scratch.path, 'stopped'));
    assert.deepEqual(stopped.cpus, kernel.cpus);
    const { cpuOf, unknown } = runningTasks(stopped);
    assert.deepEqual([new Set(cpuOf.values()), unknown], [new Set(kernel.cpus), []]);
    const sizeOf = (of: Kernel) => listProcesses(of).rows.find(({ pid }) => pid === pids.sleeper)?.rssKib;
    assert.equal(sizeOf(stopped), sizeOf(kernel));
    assert.equal(readLog(stopped).damage, undefined);
    stopped.close();
  });

  test('has its whole log, or says what is missing, whatever page of it is lost', () => {
    const memory = new RecordingMemory(source.physical);
    const all = logView(open(memory));
    memory.touched.clear();
    const log = logView(open(memory));
    assert.deepEqual([log.marked, Object.keys(log.rows)], [[], Object.keys(all.rows)]);
    let lost = 0;
    // The unit tests have every page of a smaller log.
    for (const frame of [...memory.touched].filter((_, i) => i % 4 === 0)) {
      for (const byte of [0, 0xff]) {
        const other = new RecordingMemory(source.physical);
        other.replace(frame * PAGE_SIZE, Buffer.alloc(PAGE_SIZE, byte));
        const damagedLog = captureOrRefuse(() => logView(open(other)));
        if (damagedLog === undefined) continue;
        assert.deepEqual(silentViews({ log }, { log: damagedLog }, 'content'), [], `page ${frame}`);
        if (damagedLog.marked.length > 0) lost++;
      }
    }
    assert.ok(lost > 5, `${lost} pages were of the log`);
  });

  test('a list of tasks that is cut off is made up for by the table of PIDs', () => {
    assert.deepEqual(groupsOf(damaged([listHead(), ZERO])), groupsOf(whole));
    const middle = task(writer) + member('task_struct', 'tasks');
    const result = damaged([middle, ZERO], [middle + 8n, ZERO]);
    assert.deepEqual(groupsOf(result), groupsOf(whole));
    assert.deepEqual(result.refused, whole.refused);
  });

  test('a table of PIDs that is damaged is made up for by the list of tasks', () => {
    assert.deepEqual(groupsOf(damaged([pidTable(), ZERO])), groupsOf(whole));
    assert.deepEqual(groupsOf(damaged([pidTable(), Buffer.alloc(8, 0xff)])), groupsOf(whole));
  });

  test('with both damaged, what others may hold is refused, and nothing else', () => {
    const middle = task(writer) + member('task_struct', 'tasks');
    const result = damaged([middle, ZERO], [middle + 8n, ZERO], [pidTable(), Buffer.alloc(8, 0xff)]);
    for (const group of groupsOf(whole)) {
      const pid = Number.parseInt(group, 10);
      const isFound = groupsOf(result).includes(group) || reasonsOf(result, pid) !== '';
      assert.ok(isFound, `${group}: ${groupsOf(result)}`);
    }
    assert.doesNotMatch(groupsOf(result).join(), new RegExp(`\\b${pids.reader}\\b`));
  });

  test('a process whose task_struct is gone is refused alone', () => {
    const result = damaged([task(pids.sleeper), Buffer.alloc(PAGE_SIZE / 2)]);
    assert.deepEqual(
      groupsOf(result),
      groupsOf(whole).filter((group) => group !== String(pids.sleeper)),
    );
    assert.match(reasonsOf(result, pids.sleeper), /./);
  });

  test('a stranger whose files cannot be read harms those only who share with somebody unknown', () => {
    const unreadable = damaged([taskAt(kernel, task(writer)).files, Buffer.alloc(256, 0xff)]);
    assert.deepEqual(groupsOf(unreadable), groupsOf(whole));
    assert.match(reasonsOf(unreadable, pids.reader), /a pipe|FIFO/);
  });

  test('a process that loses its child does not come back without it', () => {
    const pair = groupsOf(whole).find((group) => group.startsWith(`${pids.pipeline}+`)) ?? '';
    const [, child = 0] = pair.split('+').map(Number);
    const { mm } = taskAt(kernel, task(child));
    const lost = damaged([mm + member('mm_struct', 'mm_mt.ma_root'), Buffer.alloc(8, 0x33)]);
    assert.match(reasonsOf(lost, child), /address 0x3333333333333333 /);
    assert.match(reasonsOf(lost, pids.pipeline), new RegExp(`is tied to ${child} `));
    // Its last member is as large as the processor's registers need: less than its type says, and the next
    // task follows.
    const gone = damaged([task(child), Buffer.alloc(Number(member('task_struct', 'thread')))]);
    assert.deepEqual(
      groupsOf(gone),
      groupsOf(whole).filter((group) => group !== pair),
    );
    assert.match(reasonsOf(gone, pids.pipeline), /./);
  });

  test('children of a process whose list of them is damaged are found by their parent', () => {
    const children = task(pids.pipeline) + member('task_struct', 'children');
    assert.deepEqual(groupsOf(damaged([children, Buffer.alloc(8, 0x11)])), groupsOf(whole));
  });

  /** What was not believed of a process, as `WHAT: USED`. */
  const repairsOf = ({ groups }: CaptureResult, pid: number): string[] =>
    groups
      .flatMap(({ processes }) => processes)
      .filter((process) => process.pid === pid)
      .flatMap(({ findings }) => findings.repairs.map(({ what, used }) => `${what}: ${used}`));

  test('clocks are read from the copy that the kernel keeps, and without it from all else that has a time', () => {
    const timekeeper = [kernel.symbol('tk_core'), Buffer.alloc(128, 0xff)] as const;
    const result = damaged(timekeeper);
    assert.deepEqual(groupsOf(result), groupsOf(whole));
    const apart = (result.groups[0]?.clocks.monotonic ?? 0n) - (whole.groups[0]?.clocks.monotonic ?? 0n);
    assert.ok(apart <= 0n && apart > -1_000_000_000n, `${apart} ns`);
    assert.deepEqual(repairsOf(result, pids.sleeper), ['clocks: shadow_timekeeper, to about 0.1 s']);
    const both = [timekeeper, [kernel.symbol('shadow_timekeeper'), Buffer.alloc(128, 0xff)]] as const;
    const ticks = damaged(...both);
    assert.deepEqual(groupsOf(ticks), groupsOf(whole));
    const [repair, ...others] = repairsOf(ticks, pids.sleeper);
    assert.match(repair ?? '', /^clocks: (vdso_data|tick_next_period), to about 0\.2 s$/);
    assert.deepEqual(others, []);
    const clockOf = (capture: CaptureResult) => capture.groups[0]?.clocks.monotonic ?? 0n;
    const ahead = clockOf(ticks) - clockOf(whole);
    assert.ok(ahead >= 0n && ahead < 1_000_000_000n, `${ahead} ns`);
    // What is exact to a tick is gone: jiffies, the log and the run queues are left.
    const shown = kernel.symbolMaybe('_vdso_data');
    const exact: Patch[] = [
      ...both,
      ...(shown === undefined ? [] : [[shown, Buffer.alloc(512, 0xff)] as const]),
    ];
    const coarse = damaged(...exact, [kernel.symbol('tick_next_period'), ZERO]);
    assert.match(
      reasonsOf(coarse, pids.sleeper),
      /for a time of which nothing tells .*: the clocks are known to/,
    );
    const known = new Set(whole.refused.map(({ pid }) => pid));
    // Time-outs of sockets are in jiffies, whose frequency the next tick tells.
    for (const { pid, reasons } of coarse.refused.filter((refusal) => !known.has(refusal.pid)))
      assert.match(
        reasons.join('; '),
        /the clocks are known to|jiffies do not fit|cannot come back$/,
        `process ${pid}`,
      );
    const rest: Patch[] = ['tick_next_period', 'jiffies_64', 'prb'].map((name) => [
      kernel.symbol(name),
      ZERO,
    ]);
    const queues = kernel.cpus.map(
      (cpu): Patch => [kernel.perCpu('runqueues', cpu) + member('rq', 'clock'), ZERO],
    );
    const none = damaged(...exact, ...rest, ...queues);
    assert.deepEqual(none.groups, []);
    assert.match(reasonsOf(none, pids.sleeper), /no clock is confirmed by another; timekeeper at 0x/);
  });

  test('timers on a damaged queue are found on the stacks of those who sleep', () => {
    const patches = kernel.cpus.flatMap((cpu) => {
      const base = kernel.perCpu('hrtimer_bases', cpu) + member('hrtimer_cpu_base', 'clock_base');
      const size = BigInt(kernel.sizeOf('hrtimer_clock_base'));
      const root = member('hrtimer_clock_base', 'active.rb_root');
      return Array.from(
        { length: 8 },
        (_, i): Patch => [base + BigInt(i) * size + root, Buffer.alloc(8, 0x22)],
      );
    });
    const sleeper = (result: CaptureResult) =>
      result.groups.flatMap(({ processes }) => processes).find(({ pid }) => pid === pids.sleeper)?.memory
        ?.overrides;
    const result = damaged(...patches);
    assert.deepEqual(groupsOf(result), groupsOf(whole));
    assert.notEqual(sleeper(whole), undefined);
    assert.deepEqual(sleeper(result), sleeper(whole));
  });

  test('a CPU that hides its task is asked by its run queue', () => {
    const hot = kernel.symbolMaybe('pcpu_hot');
    const patches = kernel.cpus.map(
      (cpu): Patch => [
        kernel.perCpu(hot ?? 'current_task', cpu) +
          (hot === undefined ? 0n : member('pcpu_hot', 'current_task')),
        ZERO,
      ],
    );
    assert.ok(kernel.cpus.every((cpu) => currentTask(kernel, cpu) !== 0n));
    assert.deepEqual(groupsOf(damaged(...patches)), groupsOf(whole));
  });

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

  test('ends in groups or in refusals with reasons, in time, whatever is damaged', () => {
    const place = fc.record({ frame: fc.nat(frames.length - 1), word: fc.nat(PAGE_SIZE / 8 - 1) });
    const damage = fc.oneof(
      fc.record({ kind: fc.constant('bit' as const), place, bit: fc.nat(63) }),
      fc.record({ kind: fc.constant('page' as const), place }),
      fc.record({
        kind: fc.constant('bytes' as const),
        place,
        bytes: fc.uint8Array({ minLength: 8, maxLength: 8 }),
      }),
      fc.record({ kind: fc.constant('word' as const), place, from: place }),
    );
    const at = ({ frame, word }: { frame: number; word: number }): number =>
      (frames[frame] ?? 0) * PAGE_SIZE + word * 8;
    let survived = 0;
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 8 }), (damages) => {
        const memory = new RecordingMemory(source.physical);
        for (const one of damages) {
          const to = at(one.place);
          if (one.kind === 'page') memory.replace(to - (to % PAGE_SIZE), Buffer.alloc(PAGE_SIZE));
          else if (one.kind === 'bytes') memory.replace(to, one.bytes);
          else if (one.kind === 'word') memory.replace(to, source.physical.view(at(one.from), 8));
          else {
            const bytes = Buffer.from(source.physical.view(to, 8));
            bytes[one.bit >> 3] = (bytes[one.bit >> 3] ?? 0) ^ (1 << (one.bit & 7));
            memory.replace(to, bytes);
          }
        }
        const started = processorMilliseconds();
        const result = captureOrRefuse(() => capture(open(memory)));
        assert.ok(processorMilliseconds() - started < LIMIT_MILLISECONDS);
        if (result === undefined) return;
        const known = new Set([
          ...result.groups.flatMap(({ processes }) => processes.map(({ pid }) => pid)),
          ...result.refused.map(({ pid }) => pid),
        ]);
        for (const pid of Object.values(pids)) assert.ok(known.has(pid), `${pid} is nowhere`);
        assert.deepEqual(silentDifferences(whole, result), []);
        for (const { pid, reasons } of result.refused) assert.ok(reasons.length > 0, `${pid} has no reason`);
        // Who belongs together comes back together, or not at all.
        const together = groupsOf(result).map((group) => group.split('+'));
        for (const members of groupsOf(whole).map((group) => group.split('+'))) {
          const found = together.find((group) => members.some((pid) => group.includes(pid))) ?? members;
          assert.deepEqual(
            members.filter((pid) => !found.includes(pid)),
            [],
            `of ${members} only ${found}`,
          );
        }
        if (result.groups.length > 0) survived++;
      }),
      { numRuns: RUNS },
    );
    assert.ok(survived > RUNS / 2, `${survived} of ${RUNS} brought somebody back`);
  });

  /** A kernel that cannot even be opened any more is a typed error; a capture never is one. */
  function captureOrRefuse<T>(run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      if (error instanceof VmcoreError && !(error.stack ?? '').includes('captureProcesses')) return undefined;
      throw error;
    }
  }
});
