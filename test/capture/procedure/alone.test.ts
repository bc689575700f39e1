import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { FileCapture } from '../../../src/capture/file-capture.ts';
import { RingBudget } from '../../../src/capture/files/io-uring-state.ts';
import { captureProcesses } from '../../../src/capture/index.ts';
import { forTheirProcedure } from '../../../src/capture/procedure/alone.ts';
import { selectProcesses } from '../../../src/capture/tasks.ts';
import { writeImages } from '../../../src/criu/images/index.ts';
import { mmStruct } from '../../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { listTasks } from '../../../src/linux/readers/task-list.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { CaptureResult } from '../../../src/model/group.ts';
import type { Process } from '../../../src/model/process.ts';
import { fateOf } from '../../../src/model/verdict.ts';
import { AddressError } from '../../../src/vmcore/errors.ts';
import { walkUserPages } from '../../../src/vmcore/page-table.ts';
import { releases, scratch, truthOf } from '../../vmcore/fixtures.ts';
import { ENTRY, RESTORER_AT, Recorded } from './recorded.ts';

function wanted(roots: readonly number[]) {
  return { roots, includeDescendants: true };
}

/** The program, captured alone. */
function captured(program: Recorded): CaptureResult {
  return captureProcesses(program.open(), { ...wanted([program.pid]), forProcedures: true });
}

/** The program, which has to come back for its procedure alone. */
function back(program: Recorded): Process {
  const { groups, refused } = captured(program);
  assert.deepEqual(refused, []);
  const process = groups[0]?.processes[0] ?? assert.fail();
  assert.equal(fateOf(process.findings), 'for-its-procedure');
  const { systemCall, isReady, refusedFor } = process.procedureAlone ?? assert.fail();
  assert.deepEqual([systemCall, isReady], [RESTORER_AT + 7, false]);
  // What stood against it is what it would be refused for.
  assert.deepEqual(refusedFor, captureProcesses(program.open(), wanted([program.pid])).refused[0]?.reasons);
  return process;
}

function lost({ findings }: Process): string[] {
  return findings.unexpected.map(({ of }) => of);
}

function reasons(program: Recorded): readonly string[] {
  const { groups, refused } = captured(program);
  assert.deepEqual(groups, []);
  return refused[0]?.reasons ?? [];
}

const SEMAPHORE = 1;

/** What no program has again: an eventfd in semaphore mode, which an epoll watches. */
function withSemaphore(program: Recorded): { program: Recorded; fd: number; watching: number } {
  const { fd, file } = program.file(program.pid, ({ f_op }) => isOf(program, f_op, 'eventfd_fops'));
  const watching = program.file(program.pid, ({ f_op }) => isOf(program, f_op, 'eventpoll_fops'));
  program.set('eventfd_ctx', file.private_data, 'flags', SEMAPHORE);
  return { program, fd, watching: watching.fd };
}

/** An address of its code whose page is in the page tables. */
function mapped(program: Recorded): number {
  const { kernel, threads } = program;
  const text = program.area(ENTRY);
  const { pgd } = kernel.bind(mmStruct).at(threads[0]?.mm ?? 0n);
  const [run = assert.fail()] = walkUserPages(kernel, pgd, text.vm_start, text.vm_end);
  return run.address + 0x800;
}

function isOf({ kernel }: Recorded, operations: bigint, name: string): boolean {
  return operations === kernel.symbol(name);
}

for (const release of releases) {
  suite(`a program of ${release} with a crash procedure`, () => {
    const recorded = () => new Recorded(release).register();

    test('comes back as ever if nothing stands against it', () => {
      const { groups, refused } = captured(recorded());
      assert.deepEqual(refused, []);
      const process = groups[0]?.processes[0] ?? assert.fail();
      assert.equal(fateOf(process.findings), 'whole');
      assert.equal(process.procedureAlone, undefined);
      assert.equal(process.threads.length, 3);
    });

    test('comes back for it without a descriptor that cannot be kept, and without what watches that', () => {
      const { program, fd, watching } = withSemaphore(recorded());
      const { groups, refused } = captured(program);
      assert.deepEqual(refused, []);
      const [group = assert.fail()] = groups;
      const [process = assert.fail()] = group.processes;
      const threads = program.threads.slice(1).map(({ pid }) => `thread ${pid}`);
      assert.deepEqual(lost(process).toSorted(), [...threads, `fd ${fd}`, `fd ${watching}`].toSorted());
      const own = process.findings.unexpected.find((loss) => loss.fd === fd);
      assert.equal(own?.what, `fd ${fd} is gone: it has an eventfd in semaphore mode`);
      const descriptors = group.files.tables[0]?.descriptors ?? [];
      assert.deepEqual(
        descriptors.filter((one) => one.fd === fd || one.fd === watching).map((one) => one.closeOnExec),
        [true, true],
      );
      const placeholder = group.files.files.find(
        ({ id }) => id === descriptors.find((one) => one.fd === fd)?.fileId,
      );
      assert.ok(placeholder?.type === 'path');
      const O_PATH = 0o10000000;
      assert.deepEqual(
        [placeholder.path, placeholder.flags, placeholder.identity.rdev],
        ['/dev/null', O_PATH, 0x103],
      );
      assert.ok(!group.files.files.some(({ type }) => type === 'eventfd' || type === 'eventpoll'));
    });

    test('is refused by who brings nobody back for a procedure, as an extract of images is', () => {
      const { program } = withSemaphore(recorded());
      const { groups, refused } = captureProcesses(program.open(), wanted([program.pid]));
      assert.deepEqual([groups, refused.map(({ pid }) => pid)], [[], [program.pid]]);
    });

    test('has no images without its procedure: it would go on', () => {
      const { program } = withSemaphore(recorded());
      const [group = assert.fail()] = captured(program).groups;
      const write = () => writeImages(group, program.kernel.physical, scratch('never'));
      assert.throws(write, /comes back for its crash procedure, and has not got it/);
    });

    test('comes back with its first thread alone, whatever stands against the others', () => {
      const program = recorded();
      const [first, second, third] = program.threads;
      program.set('task_struct', second?.address ?? 0n, 'ptrace', 1);
      const process = back(program);
      assert.deepEqual(
        process.threads.map(({ tid }) => tid),
        [first?.pid],
      );
      assert.deepEqual(lost(process), [`thread ${second?.pid}`, `thread ${third?.pid}`]);
      assert.match(
        process.findings.unexpected[0]?.what ?? '',
        /^thread \d+ \(first-thread\) is gone, which was in pause$/,
      );
    });

    test('comes back without where its first thread was, if nothing tells that', () => {
      const program = recorded();
      program.set('task_struct', program.threads[0]?.address ?? 0n, 'on_cpu', 1);
      const process = back(program);
      const [loss] = process.findings.unexpected.filter(({ kind }) => kind === 'execution');
      assert.match(loss?.what ?? '', /^where the first thread was is gone: thread \d+ was on a CPU/);
      // The call that its stack has may be an older one.
      assert.deepEqual([process.threads[0]?.syscall.syscall, process.findings.inDoubt], [undefined, []]);
    });

    test('is refused where nothing tells its thread pointer: where its first thread was is lost, and it sets that', () => {
      const program = recorded();
      program.set('task_struct', program.threads[0]?.address ?? 0n, 'on_cpu', 1);
      const wrfsbase = Buffer.from('f3480faed0', 'hex');
      program.code(wrfsbase, mapped(program));
      assert.match(reasons(program).at(-1) ?? '', /may have set its FS base itself: its code has WRFSBASE/);
    });

    test('is told of an io_uring that only a thread has, and which of its requests may have been done', () => {
      const program = recorded();
      const [first, second] = program.threads;
      if (program.kernel.layouts.member('task_struct', 'io_uring') === undefined) return;
      for (const thread of [first, second])
        program.set('task_struct', thread?.address ?? 0n, 'io_uring', thread?.mm ?? 0n);
      const process = back(program);
      const rings = lost(process).filter((of) => of.startsWith('io_uring'));
      assert.deepEqual(
        new Set(rings),
        new Set([first, second].map((one) => `io_uring of thread ${one?.pid}`)),
      );
      assert.deepEqual(
        process.findings.inDoubt.map(({ syscall }) => syscall),
        ['io_uring', 'io_uring'],
      );
    });

    test('comes back without memory that others watch, of which its own pages still count', () => {
      const { huge } = truthOf(release).program;
      const watched = (program: Recorded) => {
        // The stack of its second thread.
        const area = program.areas.find(({ vm_start }) => vm_start > huge + 2 ** 22) ?? assert.fail();
        const stack = program.areas[program.areas.indexOf(area) + 1] ?? assert.fail();
        program.set('vm_area_struct', stack.address, 'vm_userfaultfd_ctx.ctx', program.threads[0]?.mm ?? 0n);
        const VM_UFFD_MISSING = 0x200;
        program.set('vm_area_struct', stack.address, 'vm_flags', stack.vm_flags.low | VM_UFFD_MISSING);
        return stack;
      };
      const program = recorded();
      const stack = watched(program);
      const process = back(program);
      assert.equal(process.findings.unexpected.filter(({ kind }) => kind === 'memory').length, 1);
      const there = process.memory?.vmas.filter(({ start }) => start === stack.vm_start) ?? [];
      assert.deepEqual(
        there.map(({ end, kind, prot, runs }) => [end, kind, prot, [...runs]]),
        [[stack.vm_end, 'anonymous', 0, []]],
      );
      assert.ok(
        process.findings.checks.some(({ what, result }) => /rss counter/.test(what) && result === 'agrees'),
      );
    });

    test('is refused without one, and with one for what lasts', () => {
      const { program: without } = withSemaphore(new Recorded(release));
      assert.deepEqual(
        reasons(without).filter((reason) => /crash procedure/.test(reason)),
        [],
      );
      const { program } = withSemaphore(recorded());
      const leader = program.threads[0]?.address ?? 0n;
      program.set('task_struct', leader, 'ptrace', 1);
      assert.match(
        reasons(program).at(-1) ?? '',
        /^has a crash procedure, and cannot come back for it alone either: thread \d+ is traced by a debugger$/,
      );
    });

    test('is told which calls of threads that are gone may have taken effect', () => {
      const program = recorded();
      const [, second = assert.fail(), third = assert.fail()] = program.threads;
      program.set('task_struct', second.address, 'ptrace', 1);
      const [write, futex] = [1, 202];
      program.inCall(second, write, 5).inCall(third, futex, 0);
      const { inDoubt, unexpected } = back(program).findings;
      assert.deepEqual(
        inDoubt.map(({ tid, syscall, fd }) => [tid, syscall, fd]),
        [[second.pid, 'write', 5]],
      );
      assert.match(unexpected.find(({ tid }) => tid === third.pid)?.what ?? '', /which was in futex$/);
    });

    for (const [number, name] of [
      [59, 'execve'],
      [60, 'exit'],
      [207, 'io_destroy'],
    ] as const)
      for (const which of [0, 1])
        test(`is refused if thread ${which} was in ${name}: that is not about where it was`, () => {
          const { program } = withSemaphore(recorded());
          const thread = program.threads[which] ?? assert.fail();
          program.inCall(thread, number);
          assert.match(
            reasons(program).at(-1) ?? '',
            new RegExp(`cannot come back for it alone either: thread ${thread.pid} was in ${name}: `),
          );
        });

    test('is refused for the rights of a thread, also if that would be lost', () => {
      const { program } = withSemaphore(recorded());
      const second = program.threads[1]?.address ?? 0n;
      const { kernel } = program;
      const other = findTaskByPid(kernel, truthOf(release).kinds.pid) ?? assert.fail();
      program.set('task_struct', second, 'real_cred', taskAt(kernel, other).real_cred);
      assert.match(
        reasons(program).at(-1) ?? '',
        /alone either: thread \d+ the kernel was acting with other credentials for it$/,
      );
    });

    test('is refused if something of another thread cannot be read, for that alone', () => {
      const { program } = withSemaphore(recorded());
      program.set('task_struct', program.threads[1]?.address ?? 0n, 'real_cred', 0x1000n);
      program.set('task_struct', program.threads[1]?.address ?? 0n, 'cred', 0x1000n);
      const found = reasons(program);
      assert.match(found.at(-1) ?? '', /^cannot be read: /);
      assert.ok(found.every((reason) => !reason.includes('crash procedure')));
    });

    test('is refused for a file that is damaged', () => {
      const program = recorded();
      const { file } = program.file(program.pid, ({ f_op }) => isOf(program, f_op, 'eventfd_fops'));
      program.set('file', file.address, 'f_op', program.kernel.symbol('eventpoll_fops'));
      assert.match(
        reasons(program).at(-1) ?? '',
        /cannot come back for it alone either: has a file that is damaged/,
      );
    });

    test('stays refused, and nobody else with it, if a second look finds what cannot be read', () => {
      const program = recorded();
      const kernel = program.open();
      const { groups } = selectProcesses(kernel, listTasks(kernel), [program.pid], false);
      const refused = [{ pid: program.pid, comm: 'p', reasons: ['is refused'] }];
      const first = { groups: [], refused, ties: new Map(), alone: [program.pid] };
      const again = () => {
        throw new AddressError(0x1000, 'is not in the dump (physical)');
      };
      const decided = { terms: {}, budget: new RingBudget(undefined) };
      const found = forTheirProcedure(first, groups, decided, { kernel, files: {} as FileCapture, again });
      assert.deepEqual(found.groups, []);
      assert.match(found.refused[0]?.reasons[1] ?? '', /alone either: cannot be read: .*is not in the dump/);
    });

    test('is refused if its restorer is none, to the byte: it could go on', () => {
      const { program } = withSemaphore(recorded());
      program.code(Buffer.from('48c7c00e0000000f05', 'hex'));
      assert.match(reasons(program).at(-1) ?? '', /has a restorer by which it could not be ended/);
    });

    test('is refused together with others that it shares something with', () => {
      const { program } = withSemaphore(recorded());
      const { kinds } = truthOf(release);
      program.joinSession(kinds.pid);
      const roots = [program.pid, kinds.pid];
      const { refused, ties } = captureProcesses(program.open(), { ...wanted(roots), forProcedures: true });
      assert.ok(ties.has(program.pid));
      const own = refused.find(({ pid }) => pid === program.pid)?.reasons ?? [];
      assert.ok(own.length > 0 && own.every((reason) => !reason.includes('crash procedure')));
    });
  });
}
