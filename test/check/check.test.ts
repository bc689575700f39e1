// Checks the kernels of the fixtures as if they were alive, through files like /proc/kcore.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { checkProcesses, exact } from '../../src/check/check.ts';
import type { Conclusion } from '../../src/check/conclude.ts';
import { imagesBytes, printCheck } from '../../src/check/index.ts';
import type { CheckRequest } from '../../src/check/look.ts';
import { findPid, pidTask } from '../../src/linux/pid.ts';
import { TIF, taskAt } from '../../src/linux/sched.ts';
import { type ImagesRoom, roomOf } from '../../src/report/images-room.ts';
import { styleFor } from '../../src/report/print.ts';
import { EXT_MAGIC } from '../../src/system/file-systems.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { livingKernel } from '../../src/vmcore/open.ts';
import { openFixture, releases, truthOf, word } from '../vmcore/fixtures.ts';
import { livingFixture } from '../vmcore/living-fixture.ts';

function roomWith(bytes: number): ImagesRoom {
  return roomOf({ directory: '/images', bytes, files: undefined, type: EXT_MAGIC });
}

const CONDITIONS = {
  ...{ includeDescendants: true, criu: { major: 4, minor: 1 }, hasStageZero: false },
  leased: new Map<string, string>(),
  room: roomWith(2 ** 40),
};

/** Nothing here ends or leaves its CPU by itself: there is nothing to wait for. */
const AT_ONCE = { ...exact, pauseMilliseconds: 0 };

/** Where a process's task has a member, as a physical address. */
function placeOf(kernel: Kernel, pid: number, member: string): number {
  const entry = findPid(kernel, pid) ?? assert.fail(`no process ${pid}`);
  const task = pidTask(kernel, entry, 'PIDTYPE_PID') ?? assert.fail(`no task ${pid}`);
  const { offsetBytes } = kernel.layouts.member('task_struct', member) ?? assert.fail(member);
  return kernel.memory.translate(task + BigInt(offsetBytes));
}

/** 32 bits as the machine stores them. */
function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** What is missing in a dump is not shown by a living kernel. */
function asOfLiving(reason: string): string {
  return reason.replace('is not in the dump', 'is no memory that the kernel shows');
}

for (const release of releases) {
  suite(`a check of ${release}`, () => {
    const { kinds, program, processes } = truthOf(release);
    const roots = processes.map(({ pid }) => pid).filter((pid) => pid > 2);

    /** @param change called before each look, with its number from 0 on */
    async function check(
      request: Partial<CheckRequest>,
      change: (put: (member: string, value: number) => void, look: number) => void = () => undefined,
    ): Promise<{ found: Conclusion[]; looks: number }> {
      const file = livingFixture(release);
      const living = livingKernel(file.path);
      const dead = openFixture(release);
      let looks = 0;
      const look = (): Kernel => {
        change((member, value) => file.change(placeOf(dead, program.pid, member), u32(value)), looks++);
        return living.look();
      };
      const found = await checkProcesses(look, { roots: [program.pid], ...CONDITIONS, ...request }, AT_ONCE);
      living.close();
      return { found, looks };
    }

    test('finds each process as a capture of its dump does, with all reasons', async () => {
      const { found, looks } = await check({ roots });
      const captured = captureProcesses(openFixture(release), { roots, includeDescendants: true });
      assert.equal(looks, 2);
      assert.deepEqual(
        found.filter(({ outcome }) => outcome !== 'comes back').map(({ pid, reasons }) => [pid, reasons]),
        captured.refused.map(({ pid, reasons }) => [pid, reasons.map(asOfLiving)]),
      );
      assert.deepEqual(
        found.filter(({ outcome }) => outcome === 'refused').map(({ pid }) => pid),
        [kinds.seccomp],
      );
      const back = captured.groups.flatMap((group) => group.processes.map(({ pid }) => pid));
      assert.deepEqual(
        found
          .filter(({ outcome }) => outcome === 'comes back')
          .map(({ pid }) => pid)
          .toSorted(),
        back.toSorted(),
      );
    });

    test('refuses nobody for a room that cannot be told', async () => {
      const { found: all } = await check({ roots });
      const { found } = await check({ roots, room: undefined });
      assert.deepEqual(found, all);
      assert.match(printCheck(found, styleFor(false), undefined), /what is free is not known/);
    });

    test('refuses those whose images do not fit into what is free with those of smaller groups', async () => {
      const { found: all } = await check({ roots });
      const groups = new Map(all.flatMap(({ images }) => (images ? [[images.group, images.bytes]] : [])));
      const sizes = [...groups].toSorted(([, a], [, b]) => b - a);
      const [[largest] = assert.fail(), ...others] = sizes;
      const bytes = others.reduce((sum, [, size]) => sum + size, 0);
      // Nine tenths of what is free are for images.
      const { found } = await check({ roots, room: roomWith(Math.ceil(bytes / 0.9) + 1) });
      for (const { pid, images, reasons } of found) {
        const isLargest = images !== undefined && images.group === largest;
        assert.equal(reasons.includes('has no room for its images in /images'), isLargest, `${pid}`);
      }
      const refused = found.filter(({ images }) => images?.group === largest);
      assert.ok(refused.length > 0 && refused.every(({ outcome }) => outcome === 'refused'));
      assert.match(printCheck(found, styleFor(false), roomWith(bytes)), /: make room there/);
      // Those without room are counted as well.
      assert.equal(imagesBytes(found), imagesBytes(all));
    });

    test('says of a process that is on a CPU each time that it depends on the moment', async () => {
      const { found, looks } = await check({}, (put) => put('on_cpu', 1));
      const [one] = found;
      assert.equal(one?.outcome, 'depends');
      assert.deepEqual(one?.reasons, []);
      assert.deepEqual(one?.moments, [
        `thread ${program.pid} is on a CPU: its registers are there, not in memory`,
      ]);
      assert.equal(looks, 5);
    });

    test('says that it comes back if stage zero would save its registers', async () => {
      const { found, looks } = await check({ hasStageZero: true }, (put) => put('on_cpu', 1));
      assert.deepEqual(
        found.map(({ outcome, moments }) => [outcome, moments]),
        [['comes back', []]],
      );
      assert.equal(looks, 2);
    });

    test('says what lasts of a thread that is on a CPU each time, also if stage zero would save it', async () => {
      const file = livingFixture(release);
      const living = livingKernel(file.path);
      const kernel = living.look();
      // Its flags are the first member (arch/x86/include/asm/thread_info.h).
      const flags = placeOf(kernel, program.pid, 'thread_info');
      const before = Buffer.from(kernel.physical.view(flags, 4)).readUInt32LE();
      file.change(flags, u32(before | (1 << TIF.notsc)));
      file.change(placeOf(kernel, program.pid, 'on_cpu'), u32(1));
      const request = { roots: [program.pid], ...CONDITIONS, hasStageZero: true };
      const [one] = await checkProcesses(() => living.look(), request, AT_ONCE);
      living.close();
      assert.equal(one?.outcome, 'refused');
      assert.deepEqual(one?.reasons, [`thread ${program.pid} may not use the time stamp counter (prctl)`]);
    });

    test('does not take for damage what a process changes that is on a CPU while it is read', async () => {
      const file = livingFixture(release);
      const living = livingKernel(file.path);
      const kernel = living.look();
      const entry = findPid(kernel, program.pid) ?? assert.fail();
      const task = pidTask(kernel, entry, 'PIDTYPE_PID') ?? assert.fail();
      const { mm } = taskAt(kernel, task);
      const put = (address: bigint, bytes: Buffer) => file.change(kernel.memory.translate(address), bytes);
      const member = (structure: string, name: string) =>
        BigInt(kernel.layouts.member(structure, name)?.offsetBytes ?? assert.fail(name));
      put(mm + member('mm_struct', 'map_count'), u32(500));
      put(mm + member('mm_struct', 'total_vm'), u32(500_000));
      const request = { roots: [program.pid], ...CONDITIONS };
      const still = await checkProcesses(() => living.look(), request, AT_ONCE);
      assert.match(
        still[0]?.reasons.join('\n') ?? '',
        /memory areas of \d+ pages, but the kernel counted 500 /,
      );
      const current = kernel.symbolMaybe('pcpu_hot') ?? kernel.symbol('current_task');
      put(kernel.perCpu(current, 1), word(task));
      put(task + member('task_struct', 'on_cpu'), u32(1));
      const moving = await checkProcesses(() => living.look(), request, AT_ONCE);
      assert.deepEqual([moving[0]?.outcome, moving[0]?.reasons], ['depends', []]);
      assert.match(moving[0]?.moments.join('\n') ?? '', /but the kernel counted 500 .*\n.* is on CPU 1: /);
      const saved = await checkProcesses(() => living.look(), { ...request, hasStageZero: true }, AT_ONCE);
      assert.equal(saved[0]?.outcome, 'depends');
      assert.match(saved[0]?.moments.join('\n') ?? '', /but the kernel counted 500 [^\n]*$/);
      living.close();
    });

    test('says what lasts of a process that is on a CPU each time', async () => {
      const { found } = await check({}, (put) => {
        put('on_cpu', 1);
        put('ptrace', 1);
      });
      const [one] = found;
      assert.equal(one?.outcome, 'refused');
      assert.deepEqual(one?.reasons, [`thread ${program.pid} is traced by a debugger`]);
      assert.equal(one?.moments.length, 1);
    });

    test('looks again until what it saw once has gone, or stays', async () => {
      const gone = await check({}, (put, look) => put('ptrace', look === 0 ? 1 : 0));
      assert.deepEqual([gone.found[0]?.outcome, gone.looks], ['comes back', 3]);
      const came = await check({}, (put, look) => put('ptrace', look === 0 ? 0 : 1));
      assert.deepEqual([came.found[0]?.outcome, came.looks], ['refused', 3]);
    });

    test('leaves out who looks, and those it is tied to come back', async () => {
      const children = captureProcesses(openFixture(release), {
        roots: [kinds.pid],
        includeDescendants: true,
      }).groups.flatMap((group) => group.processes.filter(({ ppid }) => ppid === kinds.pid));
      const [child] = children;
      assert.ok(child !== undefined);
      const { found } = await check({ roots: [kinds.pid], without: new Set([child.pid]) });
      assert.equal(
        found.find(({ pid }) => pid === child.pid),
        undefined,
      );
      assert.equal(found.find(({ pid }) => pid === kinds.pid)?.outcome, 'comes back');
    });
  });
}
