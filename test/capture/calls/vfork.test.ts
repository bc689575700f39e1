import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { taskPtRegs } from '../../../src/linux/arch/index.ts';
import { mmStruct } from '../../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { CaptureResult } from '../../../src/model/group.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../../vmcore/fixtures.ts';

const VFORK = 58n;
const CLONE = 56n;
const CLONE3 = 435n;
const GETPID = 39n;
const FUTEX = 202n;
const EXECVE = 59n;
const ENOSYS = -38n;

for (const release of releases) {
  suite(`vfork in ${release}`, () => {
    const kernel = openFixture(release);
    const { kinds, program } = truthOf(release);
    const taskOf = (pid: number) => taskAt(kernel, findTaskByPid(kernel, pid) ?? assert.fail());
    // A child that fork has made of the first thread of its parent, and is stopped.
    const [parent, child] = [taskOf(kinds.pid), taskOf(kinds.stopped)];
    const other = taskOf(program.pid);
    const completion = parent.stack + 0x3000n;

    const at = (address: bigint, value: bigint) => ({
      physical: kernel.memory.translate(address),
      bytes: word(value),
    });
    const member = (task: { address: bigint }, name: string, value: bigint) =>
      at(
        task.address + BigInt(kernel.layouts.member('task_struct', name)?.offsetBytes ?? assert.fail()),
        value,
      );
    const register = (task: { stack: bigint }, name: string, value: bigint) =>
      at(
        taskPtRegs(kernel, task.stack).address +
          BigInt(kernel.layouts.member('pt_regs', name)?.offsetBytes ?? assert.fail()),
        value,
      );
    /** In the middle of a word of flags. */
    const flag = (task: { address: bigint }, name: string) => {
      const { offsetBytes, bits } = kernel.layouts.member('task_struct', name) ?? assert.fail();
      const bit = bits?.offset ?? assert.fail();
      const address = task.address + BigInt(offsetBytes + (bit >> 3));
      const before = kernel.memory.read(address, 1)[0] ?? 0;
      return { physical: kernel.memory.translate(address), bytes: Uint8Array.of(before | (1 << (bit & 7))) };
    };
    /** The child is one of vfork. */
    const inVfork = [
      member(child, 'mm', parent.mm),
      member(child, 'vfork_done', completion),
      member(child, 'clear_child_tid', 0n),
      member(child, 'set_child_tid', 0n),
      at(completion, 0n),
      register(parent, 'orig_ax', VFORK),
    ];
    type Patches = Parameters<typeof openPatched>[1];
    const capture = (patches: Patches, roots = [kinds.pid], includeDescendants = true): CaptureResult =>
      captureProcesses(openPatched(release, [...inVfork, ...patches]), { roots, includeDescendants });
    const reasonsOf = ({ refused }: CaptureResult, pid: number): readonly string[] =>
      refused.find((refusal) => refusal.pid === pid)?.reasons ?? [];
    const processOf = ({ groups }: CaptureResult, pid: number) =>
      groups.flatMap(({ processes }) => processes).find((process) => process.pid === pid) ?? assert.fail();

    test('that has not been left is of the moment, and memory that others share is not', () => {
      const { refused } = capture([member(other, 'mm', parent.mm)]);
      const refusal = refused.find(({ pid }) => pid === kinds.stopped);
      const momentOfReason = (says: RegExp) => {
        const place = refusal?.reasons.findIndex((reason) => says.test(reason)) ?? -1;
        assert.notEqual(place, -1, String(refusal?.reasons));
        return refusal?.moments?.get(place);
      };
      assert.equal(momentOfReason(/has not left vfork yet/), 'passing');
      assert.equal(momentOfReason(/^shares its address space with .*not protected/), undefined);
    });

    /** The pair is refused as it was before vfork was known. */
    const assertRefused = (
      patches: Patches,
      reason = `thread ${kinds.stopped} has not left vfork yet`,
    ): void => {
      const result = capture(patches);
      assert.ok(reasonsOf(result, kinds.stopped).includes(reason), String(reasonsOf(result, kinds.stopped)));
      assert.notDeepEqual(reasonsOf(result, kinds.pid), []);
      assert.deepEqual(result.groups, []);
    };

    test('the parent goes on with the number of the child, and both have the memory', () => {
      const result = capture([]);
      assert.deepEqual(result.refused, []);
      const [one, two] = [processOf(result, kinds.pid), processOf(result, kinds.stopped)];
      const [waiter] = one.threads;
      assert.deepEqual(waiter?.syscall, {
        outcome: 'result',
        syscall: 'vfork',
        reason: `the child ${kinds.stopped} is there`,
      });
      assert.equal(waiter?.registers.ax, BigInt(kinds.stopped));
      assert.equal(two.ppid, one.pid);
      assert.notEqual(two.memory?.id, one.memory?.id);
      assert.equal(two.memory?.copyOf, one.memory?.id);
      assert.equal(one.memory?.copyOf, undefined);
      const shape = ({ memory }: typeof one) => memory?.vmas.map(({ start, runs }) => [start, runs.pages]);
      assert.deepEqual(shape(two), shape(one));
      assert.match(one.findings.notes.join('\n'), /no longer waits in vfork/);
      assert.match(two.findings.notes.join('\n'), /was in vfork/);
    });

    /** The kernel has counted more anonymous pages of the memory. */
    const counted = (more: bigint) => {
      const { rss_stat } = kernel.bind(mmStruct).at(parent.mm);
      // MM_ANONPAGES is the second; 6.2 made each a percpu_counter.
      const perCpu = kernel.layouts.member('mm_struct', 'rss_stat.count') === undefined;
      const { offsetBytes = 0 } = perCpu ? (kernel.layouts.member('percpu_counter', 'count') ?? {}) : {};
      const address = rss_stat + BigInt(perCpu ? kernel.sizeOf('percpu_counter') + offsetBytes : 8);
      return at(address, kernel.memory.u64(address) + more);
    };

    test('what is counted of the memory agrees for both', () => {
      const counts = kernel.layouts.member('task_struct', 'rss_stat.count');
      // 6.1 has a part of each count with each task: of pages of files, then of anonymous ones.
      const parts =
        counts === undefined ? [] : [counted(-3n), at(child.address + BigInt(counts.offsetBytes), 3n << 32n)];
      for (const pid of [kinds.pid, kinds.stopped]) {
        const { findings } = processOf(capture(parts), pid);
        assert.deepEqual(
          findings.checks.filter(({ result }) => result === 'differs'),
          [],
        );
        assert.deepEqual(findings.repairs, []);
      }
    });

    test('a child that has not run yet comes out of the call with 0', () => {
      const result = capture([register(child, 'orig_ax', VFORK)]);
      const [thread] = processOf(result, kinds.stopped).threads;
      assert.equal(thread?.syscall.outcome, 'result');
      assert.equal(thread.registers.ax, 0n);
    });

    test('the parent waits in clone3 as well', () => {
      const result = capture([register(parent, 'orig_ax', CLONE3)]);
      assert.equal(processOf(result, kinds.pid).threads[0]?.syscall.outcome, 'result');
    });

    test('a child that waits for one of its own in turn comes back with both', () => {
      const second = taskOf(kinds.nothing);
      const place = child.stack + 0x3000n;
      const counts = kernel.layouts.member('task_struct', 'rss_stat.count');
      const result = capture(
        [
          member(second, 'mm', parent.mm),
          member(second, 'real_parent', child.address),
          member(second, 'vfork_done', place),
          member(second, 'clear_child_tid', 0n),
          member(second, 'set_child_tid', 0n),
          // Its own counts were of other memory.
          ...(counts === undefined ? [] : [at(second.address + BigInt(counts.offsetBytes), 0n)]),
          at(place, 0n),
          register(child, 'orig_ax', CLONE),
          register(child, 'ax', ENOSYS),
        ],
        [kinds.pid, kinds.nothing],
      );
      assert.deepEqual(result.refused, []);
      const [outer, inner] = [processOf(result, kinds.pid), processOf(result, kinds.stopped)];
      assert.equal(outer.threads[0]?.registers.ax, BigInt(kinds.stopped));
      assert.equal(inner.threads[0]?.registers.ax, BigInt(kinds.nothing));
      assert.equal(processOf(result, kinds.nothing).memory?.copyOf, outer.memory?.id);
    });

    test('it is refused where the thread that waits is not certain', () => {
      assertRefused([register(parent, 'orig_ax', GETPID)]);
      assertRefused([register(parent, 'ax', -4n)]);
      assertRefused([member(child, 'vfork_done', other.stack + 0x3000n)]);
      assertRefused([at(completion, 1n)]);
      // CLONE_PARENT
      assertRefused([member(child, 'real_parent', other.address)]);
    });

    test('the parent whose child is not protected is refused with its number', () => {
      const result = capture([], [kinds.pid], false);
      const share = `shares its address space with ${kinds.stopped}, which is not protected or cannot be read`;
      assert.ok(reasonsOf(result, kinds.pid).includes(share));
      assert.match(adviceFor(share) ?? '', /protect the other process/);
    });

    test('both are refused if a further process has the memory', () => {
      const result = capture([member(other, 'mm', parent.mm)]);
      const share = `shares its address space with ${program.pid}, which is not protected or cannot be read`;
      assert.ok(reasonsOf(result, kinds.stopped).includes(share));
      assert.ok(reasonsOf(result, kinds.pid).includes(share));
    });

    test('a child that shares more is refused', () => {
      assertRefused(
        [member(child, 'sighand', parent.sighand)],
        `shares its signal handlers with ${kinds.pid} (CLONE_SIGHAND)`,
      );
      assertRefused(
        [member(child, 'clear_child_tid', 0x1000n)],
        `thread ${kinds.stopped} is to tell its parent in memory that it has left vfork (CLONE_CHILD_CLEARTID)`,
      );
      assertRefused(
        [member(child, 'set_child_tid', 0x1000n)],
        `thread ${kinds.stopped} may still have to tell its parent its number in memory (CLONE_CHILD_SETTID)`,
      );
      assertRefused(
        [member(child, 'files', parent.files)],
        `shares its descriptors with ${kinds.pid} (CLONE_FILES)`,
      );
    });

    test('a child that waits for a lock is refused, which nobody gives back in a copy of the memory', () => {
      assertRefused(
        [register(child, 'orig_ax', FUTEX), register(child, 'ax', ENOSYS)],
        `thread ${kinds.stopped} waits for a lock of ${kinds.pid}'s`,
      );
    });

    test('a working directory that two processes share is not made two', () => {
      const users =
        parent.fs + BigInt(kernel.layouts.member('fs_struct', 'users')?.offsetBytes ?? assert.fail());
      const [tasks] = kernel.memory.read(users, 4);
      const physical = kernel.memory.translate(users);
      const result = capture([{ physical, bytes: Uint8Array.of((tasks ?? 0) + 1, 0, 0, 0) }]);
      assert.deepEqual(reasonsOf(result, kinds.pid), [
        'shares its working directory and umask with another process (CLONE_FS)',
      ]);
    });

    suite('with a child in execve', () => {
      const inExec = [
        member(child, 'robust_list', 0n),
        flag(child, 'in_execve'),
        register(child, 'orig_ax', EXECVE),
        register(child, 'ax', ENOSYS),
        register(child, 'ip', taskPtRegs(kernel, parent.stack).ip),
      ];

      test('makes that call again', () => {
        const result = capture(inExec);
        assert.deepEqual(result.refused, []);
        assert.equal(processOf(result, kinds.stopped).threads[0]?.syscall.outcome, 'restart');
      });

      test('has the arguments of its program counted as pages of the memory that it shares', () => {
        assert.deepEqual(capture([...inExec, counted(20n)]).refused, []);
        assert.notDeepEqual(capture([counted(20n)]).refused, []);
      });

      test('refuses it once the kernel has begun to take its memory away', () => {
        const fsBase = kernel.layouts.member('task_struct', 'thread.fsbase') ?? assert.fail();
        assertRefused(
          [...inExec, at(child.address + BigInt(fsBase.offsetBytes), 0n)],
          `thread ${kinds.stopped} was in the middle of execve`,
        );
      });
    });
  });
}
