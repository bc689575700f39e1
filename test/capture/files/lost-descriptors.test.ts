import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { CaptureContext } from '../../../src/capture/files/context.ts';
import type { GroupSelection } from '../../../src/capture/files/kind.ts';
import { collectLocks, locksOf } from '../../../src/capture/files/locks.ts';
import { LostDescriptors } from '../../../src/capture/files/lost-descriptors.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { readClocks } from '../../../src/linux/readers/clocks.ts';
import { listTasks } from '../../../src/linux/readers/task-list.ts';
import type { OpenFile } from '../../../src/model/file.ts';
import type { UnexpectedLoss } from '../../../src/model/loss.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';

const PID = 7;
const owner = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 };

/** A table of these files, the first at descriptor `begin`; which of them are lost if the first is. */
function lostWithFirst(files: readonly Readonly<Record<string, unknown>>[], begin = 1) {
  const losses: UnexpectedLoss[] = [];
  let lastId = files.length;
  const context = {
    files: new Map(files.map((file, i) => [i + 1, { id: i + 1, owner, ...file } as unknown as OpenFile])),
    nextId: () => ++lastId,
    loseUnexpectedly: (_: number, loss: UnexpectedLoss) => losses.push(loss),
  };
  const lost = new LostDescriptors(context as unknown as CaptureContext);
  const first = lost.lose(PID, begin, 'has a device open');
  const others = files.slice(1).map((_, i) => ({ fd: begin + i + 1, fileId: i + 2, closeOnExec: false }));
  const descriptors = lost.closure(PID, [first, ...others]);
  return { descriptors, losses: losses.map(({ what }) => what) };
}

test('a descriptor that is lost stays taken, by one that an exec closes; others are as they were', () => {
  const { descriptors, losses } = lostWithFirst([{ type: 'path' }, { type: 'eventfd' }], 3);
  assert.deepEqual(descriptors, [
    { fd: 3, fileId: 3, closeOnExec: true },
    { fd: 4, fileId: 2, closeOnExec: false },
  ]);
  assert.deepEqual(losses, ['fd 3 is gone: it has a device open']);
});

test('the number of a standard stream stays taken in the next program: no file that it opens gets it', () => {
  for (const fd of [0, 1, 2]) {
    const [first] = lostWithFirst([{ type: 'path' }], fd).descriptors;
    assert.deepEqual(first, { fd, fileId: 2, closeOnExec: false });
  }
});

test('with a descriptor those are lost that watch it, and those that watch these', () => {
  const { losses } = lostWithFirst([
    { type: 'path' },
    { type: 'eventpoll', targets: [{ fd: 3 }] },
    { type: 'eventpoll', targets: [{ fd: 4 }, { fd: 1 }] },
    { type: 'eventfd' },
  ]);
  assert.deepEqual(losses.slice(1), [
    'fd 3 is gone: it has an epoll that watches fd 1, which is gone',
    'fd 2 is gone: it has an epoll that watches fd 3, which is gone',
  ]);
});

test('with an end of a unix socket the other is lost, and no other socket', () => {
  const { losses } = lostWithFirst([
    { type: 'unix', inode: 100, peerInode: 200 },
    { type: 'unix', inode: 200, peerInode: 100 },
    { type: 'unix', inode: 300, peerInode: 400 },
    { type: 'unix', inode: 400, peerInode: 300 },
    { type: 'unix', inode: 500, peerInode: 0 },
  ]);
  assert.deepEqual(losses.slice(1), ['fd 2 is gone: it has a unix socket whose other end is gone']);
});

test('a file whose signals went to another thread is lost', () => {
  const toThread = { ...owner, pid: 9 };
  const { losses } = lostWithFirst([
    { type: 'path' },
    { type: 'eventfd', owner: toThread },
    { type: 'eventfd', owner: { ...toThread, pid: PID } },
    { type: 'eventfd', owner: { ...toThread, pidType: 1 } },
  ]);
  assert.deepEqual(losses.slice(1), [
    'fd 2 is gone: it has thread 9, which is gone, get the signals about it (F_SETOWN_EX)',
  ]);
});

for (const release of releases) {
  suite(`a lost descriptor of ${release}`, () => {
    test('takes its locks with it, as if it had been closed', () => {
      const kernel = openFixture(release);
      const { pid } = truthOf(release).kinds;
      const locks = (losesAll: boolean) => {
        const task = findTaskByPid(kernel, pid) ?? assert.fail();
        const tasks = [{ pid, task, filesId: 1 }];
        const context = new CaptureContext(kernel, readClocks(kernel), tasks, listTasks(kernel));
        const all = [...context.system.byFile.values()].flat().filter((holder) => holder.pid === pid);
        if (losesAll) for (const { fd } of all) context.of(LostDescriptors).lose(pid, fd, 'is lost');
        collectLocks(context);
        return locksOf({ context, pids: new Set([pid]) } as unknown as GroupSelection);
      };
      assert.ok(locks(false).length > 0);
      assert.deepEqual(locks(true), []);
    });
  });
}
