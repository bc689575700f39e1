import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { taskPtRegs } from '../../../src/linux/arch/index.ts';
import { fdSlots, fdtable, filesStruct } from '../../../src/linux/fdtable.ts';
import { fileStruct } from '../../../src/linux/fs.ts';
import { VM } from '../../../src/linux/mm.ts';
import { mmStruct } from '../../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { forEachVma } from '../../../src/linux/readers/vma.ts';
import { PF, taskAt } from '../../../src/linux/sched.ts';
import { SIGNAL, sighandStruct } from '../../../src/linux/signal.ts';
import { kSigactionStruct } from '../../../src/linux/signal-types.ts';
import type { CaptureResult } from '../../../src/model/group.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { walkUserPages } from '../../../src/vmcore/page-table.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../../vmcore/fixtures.ts';

const { SIGCHLD, SIGKILL, SIGSEGV } = constants.signals;
const ENOSYS = -38n;
const EXIT = 60n;
const EXIT_GROUP = 231n;
const WAIT4 = 61n;
const PAUSE = 34n;
const EPOLL_WAIT = 232n;
const MSGSND = 69n;
const FLOCK = 73n;
const VFORK = 58n;
const ERESTARTNOHAND = -514n;
const SA_NOCLDWAIT = 2n;
const SA_RESTART = 0x1000_0000n;
const HANDLER = 0x1000n;
const EXIT_ZOMBIE = 0x20n;
const CORE = 0x80;

for (const release of releases) {
  suite(`a process that was ending in ${release}`, () => {
    const kernel = openFixture(release);
    const { kinds, processes, program } = truthOf(release);
    const taskOf = (pid: number) => taskAt(kernel, findTaskByPid(kernel, pid) ?? assert.fail());
    // A child of one thread, and its parent of several.
    const [parent, child] = [taskOf(kinds.pid), taskOf(kinds.stopped)];
    // Two processes of which one writes to a pipe and the other reads from it; nobody's children.
    const [writer, reader] = ['holder', 'sleeper'].map((comm) => {
      const { pid } =
        processes.find(({ pid: one }) => one > 2 && taskOf(one).comm === comm) ?? assert.fail(comm);
      return taskOf(pid);
    }) as [ReturnType<typeof taskOf>, ReturnType<typeof taskOf>];

    type Patch = Parameters<typeof openPatched>[1][number];
    const put = (address: bigint, bytes: Uint8Array): Patch => ({
      physical: kernel.memory.translate(address),
      bytes,
    });
    /** A member of a structure, in its size. */
    const set = (struct: string, address: bigint, name: string, value: bigint | number): Patch => {
      const { offsetBytes, sizeBytes } = kernel.layouts.member(struct, name) ?? assert.fail(name);
      return put(address + BigInt(offsetBytes), word(BigInt(value)).subarray(0, sizeBytes));
    };
    const task = ({ address }: { address: bigint }, name: string, value: bigint | number) =>
      set('task_struct', address, name, value);
    const signal = ({ signal: address }: { signal: bigint }, name: string, value: bigint | number) =>
      set('signal_struct', address, name, value);
    const register = ({ stack }: { stack: bigint }, name: string, value: bigint) =>
      set('pt_regs', taskPtRegs(kernel, stack).address, name, value);
    const inCall = (of: { stack: bigint }, call: bigint, argument: bigint): Patch[] => [
      register(of, 'orig_ax', call),
      register(of, 'ax', ENOSYS),
      register(of, 'di', argument),
    ];
    /** Told to end: do_group_exit(). */
    const told = (of: { signal: bigint }, code: number): Patch[] => [
      signal(of, 'flags', SIGNAL.groupExit),
      signal(of, 'group_exit_code', code),
    ];
    const action = (handler: bigint, flags = 0n): Patch[] => {
      const type = kernel.bind(kSigactionStruct);
      const { action: actions } = kernel.bind(sighandStruct).at(parent.sighand);
      const at = actions + BigInt((SIGCHLD - 1) * type.size);
      return [set('k_sigaction', at, 'sa.sa_handler', handler), set('k_sigaction', at, 'sa.sa_flags', flags)];
    };
    const bit = (number: number): bigint => 1n << BigInt(number - 1);

    const capture = (patches: readonly Patch[], roots = [kinds.pid]): CaptureResult =>
      captureProcesses(openPatched(release, [...patches]), { roots, includeDescendants: true });
    const find = ({ groups }: CaptureResult, pid: number) =>
      groups.flatMap(({ processes: members }) => members).find((process) => process.pid === pid);
    const processOf = (result: CaptureResult, pid: number) =>
      find(result, pid) ?? assert.fail(JSON.stringify(result.refused));
    const reasonsOf = (patches: readonly Patch[], pid = kinds.stopped, roots?: number[]): string => {
      const result = capture(patches, roots);
      assert.equal(find(result, kinds.pid), undefined);
      return (result.refused.find((refusal) => refusal.pid === pid)?.reasons ?? []).join('\n');
    };
    const zombieOf = (patches: readonly Patch[]) => {
      const result = capture(patches);
      assert.deepEqual(result.refused, []);
      const { state, exitCode, memory, threads, findings } = processOf(result, kinds.stopped);
      assert.deepEqual([state, memory, threads], ['zombie', undefined, []]);
      return { exitCode, notes: findings.notes.join('\n') };
    };
    const noticeOf = (patches: readonly Patch[]) =>
      processOf(capture(patches), kinds.pid).sharedPendingSignals.filter(
        (info) => Buffer.from(info).readInt32LE(0) === SIGCHLD,
      );

    suite('is a zombie', () => {
      test('with the code that its threads were told to end with, though its memory is gone', () => {
        const { exitCode, notes } = zombieOf([...told(child, 1 << 8), task(child, 'mm', 0n)]);
        assert.equal(exitCode, 1 << 8);
        assert.match(notes, /^was ending, and has ended: exit code 1$/m);
      });

      test('killed by a signal that it was about to see', () => {
        const { exitCode, notes } = zombieOf([task(child, 'pending.signal.sig[0]', bit(SIGKILL))]);
        assert.equal(exitCode, SIGKILL);
        assert.match(notes, /^was being killed, and has ended: signal 9$/m);
        assert.equal(
          zombieOf([signal(child, 'shared_pending.signal.sig[0]', bit(SIGKILL))]).exitCode,
          SIGKILL,
        );
      });

      test('with the argument of a call that had only begun', () => {
        for (const call of [EXIT, EXIT_GROUP])
          assert.equal(zombieOf(inCall(child, call, 0x103n)).exitCode, 3 << 8);
      });

      test('but not by a call of 32-bit code, which has other numbers', () => {
        const result = capture([...inCall(child, EXIT_GROUP, 5n), register(child, 'cx', 0x1234n)]);
        assert.equal(find(result, kinds.stopped), undefined);
        assert.deepEqual(result.ended, []);
      });

      test('told so rather than by its own call', () => {
        assert.equal(zombieOf([...told(child, 2 << 8), ...inCall(child, EXIT_GROUP, 3n)]).exitCode, 2 << 8);
      });

      test('though another thread of its leader is not gone yet', () => {
        // The leader has ended, and another thread is on its way.
        const patches = [...told(parent, 1 << 8), task(parent, 'exit_state', EXIT_ZOMBIE)];
        assert.match(reasonsOf(patches, kinds.pid), /was about to end, and has children/);
      });
    });

    test('one thread of several that ends, or others that execve ends, are none of that', () => {
      for (const patches of [
        inCall(parent, EXIT, 0n),
        [signal(child, 'group_exec_task', child.address), task(child, 'pending.signal.sig[0]', bit(SIGKILL))],
      ]) {
        const result = capture(patches);
        assert.ok(result.groups.length === 0);
        assert.doesNotMatch(JSON.stringify(result), /has ended:/);
      }
    });

    suite('tells its parent', () => {
      const handled = action(HANDLER);

      test('by a signal, with all that the kernel says in it', () => {
        const times = [
          task(child, 'utime', 30_000_000n),
          signal(child, 'utime', 20_000_000n),
          task(child, 'stime', 10_000_000n),
          signal(child, 'stime', 0n),
        ];
        const [info, ...more] = noticeOf([...handled, ...told(child, 7 << 8), ...times]);
        assert.deepEqual(more, []);
        const bytes = Buffer.from(info ?? assert.fail());
        assert.equal(bytes.length, 128);
        assert.deepEqual(
          [0, 4, 8, 16, 20, 24].map((offset) => bytes.readInt32LE(offset)),
          [SIGCHLD, 0, 1, kinds.stopped, 0, 7],
        );
        assert.deepEqual([bytes.readBigInt64LE(32), bytes.readBigInt64LE(40)], [5n, 1n]);
      });

      test('that it was killed', () => {
        const bytes = Buffer.from(noticeOf([...handled, ...told(child, SIGKILL)])[0] ?? assert.fail());
        assert.deepEqual([bytes.readInt32LE(8), bytes.readInt32LE(24)], [2, SIGKILL]);
      });

      test('once, and not at all if it does not listen', () => {
        const pending = signal(parent, 'shared_pending.signal.sig[0]', bit(SIGCHLD));
        // The one that was there: without siginfo.
        const [info, ...more] = noticeOf([...handled, ...told(child, 0), pending]);
        assert.deepEqual(more, []);
        assert.equal(Buffer.from(info ?? assert.fail()).readInt32LE(16), 0);
        assert.deepEqual(noticeOf([...action(0n), ...told(child, 0)]), []);
        const blocked = task(parent, 'blocked.sig[0]', bit(SIGCHLD));
        assert.equal(noticeOf([...action(0n), ...told(child, 0), blocked]).length, 1);
      });

      test('and leaves no zombie to one that ignores it, or wants none', () => {
        for (const [patches, told_] of [
          [action(1n), 0],
          [action(HANDLER, SA_NOCLDWAIT), 1],
          [action(0n, SA_NOCLDWAIT), 0],
        ] as const) {
          const result = capture([...patches, ...told(child, 0)]);
          assert.equal(find(result, kinds.stopped), undefined);
          assert.deepEqual(
            result.ended.map(({ pid }) => pid),
            [kinds.stopped],
          );
          assert.match(result.ended[0]?.notes.join() ?? '', /has ended: exit code 0; nobody waits for it/);
          assert.equal(noticeOf([...patches, ...told(child, 0)]).length, told_);
        }
      });

      test('which interrupts its calls, but not one that waits for children', () => {
        const ending = [...handled, ...told(child, 0)];
        const outcomeIn = (call: bigint): string => {
          const patches = [register(parent, 'orig_ax', call), register(parent, 'ax', ERESTARTNOHAND)];
          return processOf(capture([...ending, ...patches]), kinds.pid).threads[0]?.syscall.outcome ?? '';
        };
        assert.equal(outcomeIn(PAUSE), 'eintr');
        assert.equal(outcomeIn(WAIT4), 'restart');
      });

      test('which ends the calls that it sleeps in by the rule of the kernel', () => {
        const threadIn = (call: bigint, flags = 0n) => {
          const asleep = [register(parent, 'ax', ENOSYS), task(parent, '__state', 1n)];
          const patches = [...asleep, register(parent, 'orig_ax', call), ...action(HANDLER, flags)];
          const { threads, findings } = processOf(capture([...patches, ...told(child, 0)]), kinds.pid);
          return [threads[0]?.syscall.outcome, findings.inDoubt.length];
        };
        for (const call of [PAUSE, EPOLL_WAIT, MSGSND]) {
          assert.deepEqual(threadIn(call), ['eintr', 0]);
          assert.deepEqual(threadIn(call, SA_RESTART), ['eintr', 0]);
        }
        assert.deepEqual(threadIn(FLOCK), ['eintr', 0]);
        assert.deepEqual(threadIn(FLOCK, SA_RESTART), ['restart', 0]);
        // Its handler may take the child before the call is made again.
        assert.deepEqual(threadIn(WAIT4), ['restart', 1]);
      });

      test('and by no other signal than SIGCHLD', () => {
        const other = task(child, 'exit_signal', 10n);
        assert.match(
          reasonsOf([...told(child, 0), other]),
          /was about to end, and tells its parent with signal 10/,
        );
      });

      test('and a core dump is not told to it wrongly', () => {
        assert.match(
          reasonsOf(told(child, SIGSEGV | CORE)),
          /has ended by signal 11 and dumped core, which CRIU cannot tell again/,
        );
      });
    });

    suite('gives up what it had', () => {
      const roots = [writer.pid, reader.pid];

      test('a pipe has lost its writer', () => {
        const result = capture(told(writer, 0), roots);
        assert.deepEqual(result.refused, []);
        assert.deepEqual(
          result.ended.map(({ pid }) => pid),
          [writer.pid],
        );
        const [group, ...more] = result.groups;
        assert.deepEqual(more, []);
        assert.deepEqual(
          group?.processes.map(({ pid }) => pid),
          [reader.pid],
        );
        assert.equal(group?.files.files.filter(({ type }) => type === 'pipe').length, 1);
        assert.equal(group.files.pipes.length, 1);
      });

      test('unless the writer is on its way to somebody as well (SCM_RIGHTS)', () => {
        const { file = 0n } = fdSlots(kernel, writer.files).find(({ fd }) => fd === 1) ?? {};
        const count = file + BigInt(kernel.bind(fileStruct).offsetOf('f_count'));
        const result = capture([...told(writer, 0), put(count, word(2n))], roots);
        assert.equal(find(result, reader.pid), undefined);
        assert.notDeepEqual(result.refused, []);
      });

      /** A descriptor of another process is the writer's, in the place of its end of the pipe. */
      const moved = (from: { files: bigint }, fd: number): Patch[] => {
        const file = fdSlots(kernel, from.files).find((slot) => slot.fd === fd)?.file ?? assert.fail();
        const tableOf = (of: { files: bigint }) =>
          kernel.bind(fdtable).at(kernel.bind(filesStruct).at(of.files).fdt);
        const [own, other] = [tableOf(from), tableOf(writer)];
        const bits = kernel.memory.u64(own.open_fds) & ~(1n << BigInt(fd));
        return [
          put(own.fd + BigInt(fd * 8), word(0n)),
          put(own.open_fds, word(bits)),
          put(other.fd + 8n, word(file)),
        ];
      };

      test('a terminal that has lost its other end cannot come back', () => {
        const slave = processes
          .find(({ pid }) => pid === kinds.pid)
          ?.files.find((file) => /pts\/0$/.test(file));
        const apart = moved(parent, Number(slave?.split(' ')[0]));
        const both = [kinds.pid, writer.pid];
        assert.notEqual(find(capture(apart, both), kinds.pid), undefined);
        assert.match(
          reasonsOf([...apart, ...told(writer, 0)], kinds.pid, both),
          /has the terminal \/dev\/pts\/0, whose other end a process had that was ending/,
        );
      });

      test('a socket has lost its other end, and the bytes that it did not read', () => {
        const [kept = 0, given = 0] =
          processes
            .find(({ pid }) => pid === program.pid)
            ?.files.filter((file) => file.includes('socket'))
            .map((file) => Number(file.split(' ')[0])) ?? [];
        const apart = moved(taskOf(program.pid), given);
        const roots = [program.pid, writer.pid];
        const socketOf = (result: CaptureResult) => {
          const [group] = result.groups.filter(({ id }) => id === program.pid);
          const { descriptors } = group?.files.tables[0] ?? assert.fail(JSON.stringify(result.refused));
          const { fileId } = descriptors.find(({ fd }) => fd === kept) ?? assert.fail();
          const socket = group?.files.files.find(({ id }) => id === fileId);
          return socket?.type === 'unix' ? socket : assert.fail();
        };
        assert.notEqual(socketOf(capture(apart, roots)).peerInode, 0);
        const { peerInode, shutdown } = socketOf(capture([...apart, ...told(writer, 0)], roots));
        assert.deepEqual([peerInode, shutdown], [0, 3]);
      });
    });

    test('in vfork, it has left its parent’s memory, and the parent goes on', () => {
      const completion = parent.stack + 0x3000n;
      const inVfork = [
        task(child, 'mm', parent.mm),
        task(child, 'vfork_done', completion),
        task(child, 'clear_child_tid', 0n),
        task(child, 'robust_list', 0n),
        put(completion, word(0n)),
        register(parent, 'orig_ax', VFORK),
        register(parent, 'ax', ENOSYS),
      ];
      const result = capture([...inVfork, ...told(child, 127 << 8)]);
      assert.deepEqual(result.refused, []);
      assert.equal(processOf(result, kinds.stopped).state, 'zombie');
      const { threads, findings, memory } = processOf(result, kinds.pid);
      assert.equal(threads[0]?.registers.ax, BigInt(kinds.stopped));
      assert.match(findings.notes.join('\n'), /no longer waits in vfork for \d+, which has ended/);
      assert.notEqual(memory, undefined);
      // It has let its parent go on.
      const later = [...inVfork, task(child, 'vfork_done', 0n), ...told(child, 127 << 8)];
      assert.deepEqual(capture(later).refused, []);
      const tells = [...inVfork, ...told(child, 0), task(child, 'clear_child_tid', 0x1000n)];
      assert.match(reasonsOf(tells), /was about to end, and is to tell others in memory/);
    });

    suite('is refused', () => {
      const ending = told(child, 0);
      /** A list with an entry: anything but the head itself. */
      const notEmpty = (name: 'children' | 'ptraced' | 'pi_state_list'): Patch =>
        put(child[name] ?? assert.fail(), word(parent.address));

      test('while its core is dumped, or traced, or with children, by name', () => {
        for (const [patch, reason] of [
          [signal(child, 'core_state', parent.stack), 'was dumping core'],
          [task(child, 'ptrace', 1), 'is traced by a debugger'],
          [notEmpty('ptraced'), 'traces another process'],
        ] as const) {
          const reasons = reasonsOf([...ending, patch]);
          assert.ok(reasons.split('\n').includes(`was about to end, and ${reason}`), reasons);
          assert.notEqual(adviceFor(reasons), undefined);
        }
      });

      test('if it leads the session of a terminal', () => {
        assert.match(
          reasonsOf([...ending, signal(child, 'leader', 1), signal(child, 'tty', parent.stack)]),
          /was about to end, and leads the session of a terminal/,
        );
      });

      test('if nothing tells how it ends', () => {
        const signaled = task(child, 'flags', child.flags | PF.signaled);
        assert.match(reasonsOf([signaled]), /was about to end, and nothing tells how/);
      });

      test('with a thread that has let go of the memory, if others have not', () => {
        const reasons = reasonsOf([task(parent, 'mm', 0n)], kinds.pid);
        assert.match(reasons, /had a first thread that was ending, and others that were not/);
        assert.doesNotMatch(reasons, /cannot be read/);
      });

      test('with locked robust futexes, but only where memory is shared', () => {
        const mm = kernel.bind(mmStruct).at(child.mm);
        const place = Number(child.robust_list) % PAGE_SIZE;
        const start = Number(child.robust_list) - place;
        const [page = assert.fail()] = walkUserPages(kernel, mm.pgd, start, start + PAGE_SIZE);
        const locked = { physical: page.pfn * PAGE_SIZE + place, bytes: word(0x1000n) };
        assert.equal(zombieOf([...ending, locked]).exitCode, 0);
        const [area = assert.fail()] = forEachVma(kernel, mm);
        const { offsetBytes } = kernel.layouts.member('vm_area_struct', 'vm_flags') ?? assert.fail();
        const flags = area.vm_flags.low | VM.mayShare | VM.mayWrite;
        const shared = put(area.address + BigInt(offsetBytes), word(BigInt(flags)));
        assert.equal(zombieOf([...ending, shared]).exitCode, 0);
        assert.match(
          reasonsOf([...ending, locked, shared]),
          /was about to end, and has locked robust futexes, which others may share/,
        );
        assert.match(
          reasonsOf([...ending, shared, notEmpty('pi_state_list')]),
          /has locked futexes that inherit priority/,
        );
      });
    });
  });
}
