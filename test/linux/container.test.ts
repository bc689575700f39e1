// Walks over structures of a kernel that changes them meanwhile.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { attempt } from '../../src/capture/attempt.ts';
import { pageCache } from '../../src/capture/files/content/page-cache.ts';
import { FileRefusal } from '../../src/capture/files/refusal.ts';
import { settled } from '../../src/linux/container.ts';
import { addressSpaceStruct, fileStruct } from '../../src/linux/fs.ts';
import { hrtimerClockBaseStruct, hrtimerCpuBaseStruct } from '../../src/linux/hrtimer.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { rbTreeForEach } from '../../src/linux/rbtree.ts';
import { sleepDeadlines } from '../../src/linux/readers/hrtimer-sleeper.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { adviceFor } from '../../src/report/advice.ts';
import { AddressError, ChangingError, ContainerError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { livingKernel } from '../../src/vmcore/open.ts';
import { openFixture, openPatched, type Release, releases, truthOf, word } from '../vmcore/fixtures.ts';
import { livingFixture } from '../vmcore/living-fixture.ts';
import { makeFile } from '../vmcore/made-file.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

/** The tree of areas in which a program that several processes run is mapped. */
function mappedTree(kernel: Kernel, release: Release): bigint {
  const task = taskAt(kernel, findTaskByPid(kernel, truthOf(release).kinds.pid) ?? assert.fail());
  const { exe_file } = kernel.bind(mmStruct).at(task.mm);
  return kernel.bind(addressSpaceStruct).at(kernel.bind(fileStruct).at(exe_file).f_mapping).i_mmap;
}

/** The first queue of timers with several of them. */
function timerTree(kernel: Kernel): bigint {
  const base = kernel.bind(hrtimerClockBaseStruct);
  const { clock_base: first } = kernel
    .bind(hrtimerCpuBaseStruct)
    .at(kernel.perCpu('hrtimer_bases', kernel.cpus[0] ?? assert.fail()));
  return [0, 1, 2, 3, 4, 5, 6, 7]
    .map((index) => base.at(first + BigInt(index * base.size)).active)
    .find((root) => [...rbTreeForEach(kernel, root)].length > 2) as bigint;
}

/** Calls `change` before each time that something is read, with its number from 1 on. */
function beforeEachTry(kernel: Kernel, change: (tries: number) => void): void {
  const { physical } = kernel;
  const noteReads = physical.noteReads?.bind(physical);
  let tries = 0;
  Object.assign(physical, {
    noteReads: () => {
      change(++tries);
      return noteReads?.() ?? { forget: () => undefined, end: () => undefined };
    },
  });
}

for (const release of releases) {
  suite(`walks over the living kernel of ${release}`, () => {
    const dead = openFixture(release);

    /** A living kernel with a tree, and how the parents of its nodes are changed. */
    function withTree(treeOf: (kernel: Kernel) => bigint) {
      const file = livingFixture(release);
      const root = treeOf(dead);
      const nodes = [...rbTreeForEach(dead, root)];
      const node = nodes.at(-1) ?? assert.fail();
      const sound = dead.memory.u64(node);
      const putAt = (at: bigint, value: bigint) => file.change(dead.memory.translate(at), word(value));
      /** Spoils one node, and mends the one that was spoiled before. */
      const spoilAnother = (tries: number) => {
        for (const [place, at] of nodes.entries()) {
          const isSpoiled = place === tries % 2;
          putAt(at, dead.memory.u64(at) + (isSpoiled ? 0x100n : 0n));
        }
      };
      const put = (value: bigint) => putAt(node, value);
      return { kernel: livingKernel(file.path).look(), root, nodes, node, put, sound, spoilAnother };
    }
    const areas = () => withTree((kernel) => mappedTree(kernel, release));

    test('read again from memory what was looked at before it changed', () => {
      const { kernel, root, nodes, node, put, sound } = areas();
      put(sound + 0x100n);
      assert.equal(kernel.memory.u64(node), sound + 0x100n);
      put(sound);
      assert.equal(kernel.memory.u64(node), sound + 0x100n);
      assert.deepEqual([...rbTreeForEach(kernel, root)], nodes);
      assert.equal(kernel.memory.u64(node), sound);
    });

    test('end when each time something else does not agree, and do not call that damage', () => {
      const { kernel, root, spoilAnother } = areas();
      let most = 0;
      beforeEachTry(kernel, (tries) => {
        most = tries;
        spoilAnother(tries);
      });
      const walk = () => [...rbTreeForEach(kernel, root)];
      assert.throws(walk, (error) => {
        assert.ok(error instanceof ChangingError);
        assert.match(error.message, /^rbtree at 0x[0-9a-f]+ changes while it is read: it is such that the/);
        return true;
      });
      assert.ok(most > 1 && most < 10, String(most));
    });

    test('call damage what is the same each time', () => {
      const { kernel, root, put, sound } = areas();
      put(sound + 0x100n);
      const walk = () => [...rbTreeForEach(kernel, root)];
      assert.throws(walk, (error) => error instanceof ContainerError && !(error instanceof ChangingError));
      assert.throws(walk, /is damaged: the parent of/);
    });

    test('know the deadlines of a queue of timers that has changed since, or say that it does', () => {
      const { kernel, node, put, sound } = withTree(timerTree);
      put(sound + 0x100n);
      assert.equal(kernel.memory.u64(node), sound + 0x100n);
      put(sound);
      assert.deepEqual(sleepDeadlines(kernel), sleepDeadlines(dead));
      const other = withTree(timerTree);
      beforeEachTry(other.kernel, other.spoilAnother);
      const { damage, isChanging } = sleepDeadlines(other.kernel);
      assert.equal(isChanging, true);
      assert.match(damage.join('\n'), /^timer queue \d of CPU \d+: rbtree at 0x[0-9a-f]+ changes/);
    });

    test('of a dead kernel are made once, and nothing in it is changing', () => {
      let reads = 0;
      const damage = new ContainerError('list', 1n, 'is damaged');
      const read = () => {
        reads++;
        throw damage;
      };
      assert.throws(() => settled(dead, read), damage);
      assert.equal(reads, 1);
      const { root, node, sound } = withTree(timerTree);
      const patch = { physical: dead.memory.translate(node), bytes: word(sound + 0x100n) };
      const damaged = openPatched(release, [patch]);
      assert.throws(() => [...rbTreeForEach(damaged, root)], /is damaged: the parent of/);
      assert.equal(sleepDeadlines(damaged).isChanging, false);
      assert.equal(sleepDeadlines(damaged).damage.length, 1);
    });

    test('are made again once, not by each walk around them', () => {
      const { kernel } = areas();
      let reads = 0;
      const read = () => {
        throw new ContainerError('list', 1n, `is damaged: ${reads++}`);
      };
      assert.throws(() => settled(kernel, () => settled(kernel, read)), ChangingError);
      const nested = reads;
      reads = 0;
      assert.throws(() => settled(kernel, read), ChangingError);
      assert.equal(nested, reads);
    });

    test('give the page cache of a file that is being written', () => {
      const made = () => {
        const kernel = new MadeKernel(release);
        const { inode } = makeFile(kernel, 'tmpfs', [{ index: 0, fill: 1, flags: ['uptodate'] }]);
        const { offsetBytes } = kernel.layouts.member('address_space', 'nrpages') ?? assert.fail();
        const counts = kernel.physical.view(
          kernel.memory.translate(inode.i_mapping + BigInt(offsetBytes)),
          8,
        );
        return { kernel, mapping: inode.i_mapping, counts };
      };
      const grown = made();
      grown.kernel.isAlive = true;
      beforeEachTry(grown.kernel, (tries) => grown.counts.set([tries === 1 ? 3 : 1]));
      assert.equal(pageCache(grown.kernel, grown.mapping, true).runs.pages, 1);
      const growing = made();
      growing.kernel.isAlive = true;
      beforeEachTry(growing.kernel, (tries) => growing.counts.set([tries + 1]));
      const read = () => pageCache(growing.kernel, growing.mapping, true);
      assert.throws(read, (error) => error instanceof ChangingError);
      assert.throws(read, /page cache at 0x[0-9a-f]+ changes while it is read: it holds 1 pages but counts/);
    });
  });
}

suite('what changes while it is read', () => {
  const damage = new ContainerError('page cache', 1n, 'holds 224 pages but counts 222');

  test('stands against a process at that moment only', () => {
    const reasonOf = (error: Error) => {
      const said: (readonly [reason: string, moment: string | undefined])[] = [];
      attempt(
        (reason, moment) => said.push([reason, moment]),
        () => {
          throw error;
        },
      );
      return said[0]?.[1];
    };
    assert.equal(reasonOf(new ChangingError(damage)), 'passing');
    assert.equal(reasonOf(new ChangingError(new AddressError(1n, 'is not mapped'))), 'passing');
    assert.equal(reasonOf(damage), undefined);
  });

  test('is nothing that anybody has to do anything about', () => {
    const { message } = new ChangingError(damage);
    assert.match(adviceFor(`has a file that cannot be read: ${message}`) ?? '', /^a matter of the moment/);
    assert.match(adviceFor(`has a file that cannot be read: ${damage.message}`) ?? '', /is damaged/);
  });

  test('is no damage of a file', () => {
    const changing = FileRefusal.unreadable('has a file that ', new ChangingError(damage));
    assert.deepEqual([changing.moment, changing.isDamage], ['passing', false]);
    const damaged = FileRefusal.unreadable('has a file that ', damage);
    assert.deepEqual([damaged.moment, damaged.isDamage], [undefined, true]);
    assert.equal(
      damaged.reason,
      'has a file that cannot be read: page cache at 0x1 holds 224 pages but counts 222',
    );
  });
});
