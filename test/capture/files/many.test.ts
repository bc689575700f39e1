// Processes with very many files: what is done for each must not depend on how many there are.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { CaptureContext } from '../../../src/capture/files/context.ts';
import { captureEventpoll } from '../../../src/capture/files/eventpoll.ts';
import { collectLocks, locksOf } from '../../../src/capture/files/locks.ts';
import { Connections } from '../../../src/capture/files/sockets/inet/tcp-ends.ts';
import { listenerOf } from '../../../src/capture/files/sockets/unix/unix.ts';
import { Connected } from '../../../src/capture/files/sockets/unix/unix-queue.ts';
import { groupProcesses, type Member } from '../../../src/capture/groups.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { fileAt } from '../../../src/linux/file.ts';
import { fileStruct, inodeStruct } from '../../../src/linux/fs.ts';
import { inetSock } from '../../../src/linux/inet.ts';
import { mmStruct } from '../../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { fileKind } from '../../../src/linux/readers/file-kind.ts';
import { listTasks } from '../../../src/linux/readers/task-list.ts';
import { forEachVma } from '../../../src/linux/readers/vma.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { family, tcpState } from '../../../src/linux/sock.ts';
import { newFindings } from '../../../src/model/verdict.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { assertInProportion, elementsLookedAt } from '../../work.ts';

const CLOCKS = { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n };
const LIST = { tasks: [], lost: [], damage: [], isComplete: true };

/** How often structures of a kernel are looked for in its memory. */
function readsOf(kernel: Pick<Kernel, 'memory'>, step: () => void): number {
  const { memory } = kernel;
  const before = memory.contiguous;
  let count = 0;
  memory.contiguous = (address, length) => {
    count++;
    return before.call(memory, address, length);
  };
  try {
    step();
  } finally {
    memory.contiguous = before;
  }
  return count;
}

/** A capture of nobody, in which these sockets are somebody's. */
function contextOf(kernel: MadeKernel, sockets: readonly bigint[]): CaptureContext {
  const context = new CaptureContext(kernel, CLOCKS, [], LIST);
  context.system.objectsOf = () => new Set(sockets);
  return context;
}

function makeSocket(kernel: MadeKernel, of: 'tcp_sock' | 'unix_sock', state: number): bigint {
  const sock = kernel.allocate(of);
  const { inet, unix } = family;
  kernel.set('sock', sock, '__sk_common.skc_family', of === 'tcp_sock' ? inet : unix);
  kernel.set('sock', sock, '__sk_common.skc_state', state);
  return sock;
}

/**
 * Openings of one file, with a lock for each.
 * @param list which of the lists of its `file_lock_context` they are in
 */
function makeLockedFiles(
  kernel: MadeKernel,
  number: number,
  list: 'flc_flock' | 'flc_posix',
  ownerOf: (file: bigint) => bigint,
): readonly bigint[] {
  const [inode, locks] = [kernel.allocate('inode'), kernel.allocate('file_lock_context')];
  kernel.set('inode', inode, 'i_flctx', locks);
  for (const name of ['flc_flock', 'flc_posix', 'flc_lease']) {
    const head = kernel.memberAddress('file_lock_context', locks, name);
    kernel.set('list_head', head, 'next', head);
  }
  const files = Array.from({ length: number }, () => {
    const file = kernel.allocate('file');
    kernel.set('file', file, 'f_mode', 0x80000);
    kernel.set('file', file, 'f_inode', inode);
    kernel.set('file', file, 'f_op', 1n);
    const count = kernel.hasMember('file', 'f_count') ? 'f_count' : 'f_ref.refcnt';
    kernel.set('file', file, count, 1);
    return file;
  });
  const core = kernel.hasMember('file_lock', 'c.flc_list') ? 'c.flc_' : 'fl_';
  const nodes = files.map((file) => {
    const lock = kernel.allocate('file_lock');
    kernel.set('file_lock', lock, `${core}owner`, ownerOf(file));
    kernel.set('file_lock', lock, `${core}file`, file);
    kernel.set('file_lock', lock, `${core}flags`, list === 'flc_posix' ? 1 : 2);
    kernel.set('file_lock', lock, 'fl_end', (1n << 63n) - 1n);
    return kernel.memberAddress('file_lock', lock, `${core}list`);
  });
  const head = kernel.memberAddress('file_lock_context', locks, list);
  for (const [i, node] of [head, ...nodes].entries()) {
    const next = nodes[i] ?? head;
    kernel.set('list_head', node, 'next', next);
    kernel.set('list_head', next, 'prev', node);
  }
  return files;
}

for (const release of releases) {
  suite(`very many files of a process of ${release}`, () => {
    test('connections to elsewhere: each is looked for once', () => {
      assertInProportion((things) => {
        const kernel = new MadeKernel(release);
        const sockets = Array.from({ length: things }, (_, i) => {
          const sock = makeSocket(kernel, 'tcp_sock', tcpState.established);
          kernel.set('sock', sock, 'sk_protocol', 6);
          const Inet = kernel.bind(inetSock);
          kernel.write(sock + BigInt(Inet.offsetOf('daddr')), Buffer.from([192, 0, 2, i]));
          kernel.write(sock + BigInt(Inet.offsetOf('saddr')), Buffer.from([192, 0, 3, 1]));
          return sock;
        });
        const context = contextOf(kernel, sockets);
        const ends = (i: number) => ({
          network: 0n,
          own: { address: Buffer.from([192, 0, 3, 1]), port: 0 },
          peer: { address: Buffer.from([192, 0, 2, i]), port: 0 },
        });
        return elementsLookedAt(() => {
          const connections = new Connections(context);
          for (let i = 0; i < things; i++) {
            assert.equal(connections.peerOf(ends(i)), undefined);
            assert.equal(connections.isWithin(ends(i)), false);
          }
          assert.equal(connections.isWithin({ ...ends(0), own: ends(1).peer, peer: ends(0).own }), true);
        });
      });
    });

    test('unix sockets that wait to be accepted: all listeners are read once', () => {
      assertInProportion((things) => {
        const kernel = new MadeKernel(release);
        const ends: bigint[] = [];
        const listeners = Array.from({ length: things }, () => {
          const sock = makeSocket(kernel, 'unix_sock', tcpState.listen);
          const head = kernel.memberAddress('sock', sock, 'sk_receive_queue');
          const [skb, end] = [kernel.allocate('sk_buff'), kernel.allocate('unix_sock')];
          kernel.set('sk_buff_head', head, 'next', skb);
          kernel.set('sk_buff_head', head, 'qlen', 1);
          kernel.set('sk_buff', skb, 'next', head);
          kernel.set('sk_buff', skb, 'sk', end);
          ends.push(end);
          return sock;
        });
        const context = contextOf(kernel, listeners);
        return readsOf(kernel, () => {
          for (const [i, end] of ends.entries()) assert.equal(listenerOf(context, end)?.sock, listeners[i]);
        });
      }, 8);
    });

    test('unix sockets with messages: who is connected to whom is read once', () => {
      assertInProportion((things) => {
        const kernel = new MadeKernel(release);
        const sockets = Array.from({ length: things }, () =>
          makeSocket(kernel, 'unix_sock', tcpState.established),
        );
        const peerOf = (i: number): bigint => sockets[(i + 1) % things] ?? 0n;
        for (const [i, sock] of sockets.entries()) kernel.set('unix_sock', sock, 'peer', peerOf(i));
        const context = contextOf(kernel, sockets);
        return readsOf(kernel, () => {
          for (const [i, sock] of sockets.entries())
            assert.deepEqual(context.of(Connected).byPeer.get(peerOf(i)), [sock]);
        });
      });
    });

    test('locks on one file: its holders are looked through once', () => {
      assertInProportion((things) => {
        const kernel = new MadeKernel(release);
        const files = makeLockedFiles(kernel, things, 'flc_flock', (file) => file);
        const context = new CaptureContext(kernel, CLOCKS, [], LIST);
        for (const [fd, file] of files.entries())
          context.system.byFile.set(file, [{ pid: 5, comm: '', fd, file, isProtected: true }]);
        const work = elementsLookedAt(() => collectLocks(context));
        const found = locksOf({ context, pids: new Set([5]) } as never);
        assert.deepEqual(
          found.map(({ fd }) => fd),
          files.map((_, fd) => fd),
        );
        return work;
      });
    });

    test('locks on one file: a holder that cannot be read does not keep them from the one that has them', () => {
      const kernel = new MadeKernel(release);
      const [task, table] = [kernel.allocate('task_struct'), kernel.allocate('files_struct')];
      kernel.set('task_struct', task, 'files', table);
      const [file = 0n] = makeLockedFiles(kernel, 1, 'flc_posix', () => table);
      const tasks = [
        { pid: 5, task: 0xdead_0000n, filesId: 1 },
        { pid: 6, task, filesId: 2 },
      ];
      const context = new CaptureContext(kernel, CLOCKS, tasks, LIST);
      const holders = tasks.map(({ pid }) => ({ pid, comm: '', fd: 3, file, isProtected: true }));
      context.system.byFile.set(file, holders);
      collectLocks(context);
      assert.deepEqual([...context.refusals], []);
      const found = locksOf({ context, pids: new Set([5, 6]) } as never);
      assert.deepEqual(
        found.map(({ kind, pid }) => [kind, pid]),
        [['posix', 6]],
      );
    });

    test('epolls of a process: what its files are watched by is read once for all of them', () => {
      const kernel = openFixture(release);
      const { pid } = truthOf(release).kinds;
      const task = findTaskByPid(kernel, pid) ?? 0n;
      const slots = fdSlots(kernel, taskAt(kernel, task).files);
      const files = slots.flatMap(({ file }) => fileAt(kernel, file) ?? []);
      const epoll = files.find((file) => fileKind(kernel, file.f_op) === 'eventpoll') ?? assert.fail();
      const own = [{ pid, task, filesId: 1 }];
      const context = new CaptureContext(kernel, CLOCKS, own, listTasks(kernel));
      const capture = () => readsOf(kernel, () => captureEventpoll(context, epoll, () => 1));
      const [first, second] = [capture(), capture()];
      assert.ok(second < first / 2, `${first} reads for one, ${second} for the next`);
      assert.ok(second < files.length, `${second} reads, and ${files.length} files`);
    });

    test('areas of one file: who maps it is read once', () => {
      const kernel = openFixture(release);
      const task = taskAt(kernel, findTaskByPid(kernel, truthOf(release).kinds.pid) ?? 0n);
      const areas = [...forEachVma(kernel, kernel.bind(mmStruct).at(task.mm))];
      const { vm_file } = areas.find((area) => area.vm_file !== 0n) ?? assert.fail();
      const { f_inode } = kernel.bind(fileStruct).at(vm_file);
      const { i_mapping } = kernel.bind(inodeStruct).at(f_inode);
      const { mappers } = new CaptureContext(kernel, CLOCKS, [], listTasks(kernel));
      const ask = () => assert.deepEqual(mappers.sharing(i_mapping, 'writable'), []);
      assert.ok(readsOf(kernel, ask) > 0);
      assert.equal(readsOf(kernel, ask), 0);
    });
  });
}

suite('very many things that are said of a process', () => {
  const kernel = new MadeKernel('debian13');
  const tasks = [5, 6].map((pid) => ({ pid, task: 0n, filesId: pid }));

  test('notes and losses are each added to those before', () => {
    assertInProportion((things) => {
      const context = new CaptureContext(kernel, CLOCKS, tasks, LIST);
      const holders = [{ pid: 5, comm: '', fd: 0, file: 0n, isProtected: true }];
      const work = elementsLookedAt(() => {
        for (let i = 0; i < things; i++) {
          for (let twice = 0; twice < 2; twice++) context.note(5, `note ${i}`);
          context.refuse(5, `reason ${i}`);
          context.refuse(5, `reason ${i}`, 'passing');
          context.loseForHolders(holders, { kind: 'connections', of: '', what: `loss ${i}` });
          context.repairHolders(holders, { what: '', used: '', instead: `${i}` });
          context.loseUnexpectedly(5, { kind: 'descriptors', of: '', fd: i, what: '' });
        }
      });
      const all = [context.notes, context.refusals, context.refusalsForNow, context.losses];
      for (const said of [...all, context.repairs, context.unexpected])
        assert.equal(said.get(5)?.length, things);
      return work;
    });
  });

  test('ties of many processes by many things are each told once', () => {
    assertInProportion((things) => {
      const many = Array.from({ length: things }, (_, i) => ({ pid: i + 1, task: 0n, filesId: i }));
      const context = new CaptureContext(kernel, CLOCKS, many, LIST);
      const work = elementsLookedAt(() => {
        for (let i = 1; i < things; i++) context.join([1, i + 1], 'a pipe');
      });
      assert.equal(context.edges.length, things - 1);
      return work;
    });
  });

  test('a list of processes is looked at anew for another reason, and when it has grown', () => {
    const own = [1, 2, 3].map((pid) => ({ pid, task: 0n, filesId: pid }));
    const context = new CaptureContext(new MadeKernel(releases[0]), CLOCKS, own, LIST);
    const pids = [1, 2];
    context.join(pids, 'a pipe');
    context.join(pids, 'a memfd');
    pids.push(3);
    context.join(pids, 'a pipe');
    assert.deepEqual(context.edges, [
      { pids: [1, 2], why: 'a pipe' },
      { pids: [1, 2], why: 'a memfd' },
      { pids: [1, 3], why: 'a pipe' },
    ]);
  });

  test('members of a group are each added to those before', () => {
    assertInProportion((things) => {
      const members = Array.from({ length: things }, (_, i): Member => {
        const [pid, alone] = [i + 1, -i - 1];
        return {
          pid,
          ppid: 0,
          pgid: alone,
          sid: alone,
          comm: '',
          memory: undefined,
          findings: newFindings(),
        };
      });
      const edges = members.slice(1).map(({ pid }) => ({ pids: [1, pid] as const, why: 'a pipe' }));
      let groups: readonly (readonly Member[])[] = [];
      const work = elementsLookedAt(() => {
        ({ groups } = groupProcesses(members, edges));
      });
      assert.deepEqual(groups, [members]);
      return work;
    });
  });
});
