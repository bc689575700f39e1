// Boots one guest with processes of several kinds, dumps its memory, and captures them from copies of the
// dump that are damaged where the kernel keeps track of all processes, and at random places: a damaged
// structure may harm those whose state follows from it, by name, and nobody else.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import fc from 'fast-check';
import { RecordingMemory } from '../../lab/fixture/recording-memory.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { currentTask } from '../../src/linux/current.ts';
import { readLog } from '../../src/linux/printk.ts';
import { runningTasks } from '../../src/linux/readers/running-tasks.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { CaptureResult } from '../../src/model/group.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { processorMilliseconds } from '../processor-time.ts';
import { searchOf } from '../search.ts';
import { logView, silentViews } from '../vmcore/views.ts';
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

const SEARCH = searchOf(150);
/** A capture of this guest takes a fifth of a second. */
const LIMIT_MILLISECONDS = 10_000;

suite(`a damaged kernel of ${release}`, () => {
  let scene: DamageScene;
  const scratch = scratchDirectory();
  let source: DamageScene['source'];
  let kernel: Kernel;
  let pids: DamageScene['pids'];
  let writer: number;
  let whole: CaptureResult;
  let frames: readonly number[];

  const open = (memory: RecordingMemory): Kernel => scene.open(memory);
  const capture = (of: Kernel): CaptureResult => scene.capture(of);
  const damaged = (...patches: readonly Patch[]): CaptureResult => scene.damaged(...patches);
  const task = (pid: number): bigint => scene.task(pid);
  const member = (structure: string, path: string): bigint => scene.member(structure, path);
  const listHead = (): bigint => kernel.symbol('init_task') + member('task_struct', 'tasks');
  const pidTable = (): bigint =>
    kernel.symbol('init_pid_ns') +
    member('pid_namespace', 'idr') +
    member('idr', 'idr_rt') +
    member('xarray', 'xa_head');

  before(async () => {
    const booted = await bootDamageScene('damage', scratch.path);
    scene = booted.scene;
    ({ source, kernel, pids, writer, whole, frames } = scene);
    const { guest } = booted;
    await guest.background('sleep 1; echo c > /proc/sysrq-trigger');
    await guest.consoleSays(/end Kernel panic/, 120);
    await guest.vmcore(join(scratch.path, 'stopped'));
    await guest.down();
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
      SEARCH,
    );
    assert.ok(survived > SEARCH.numRuns / 2, `${survived} of ${SEARCH.numRuns} brought somebody back`);
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
