import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type Holders, holdersIn } from '../../../../src/criu/images/plan/holder-of.ts';
import { assertInProportion, elementsLookedAt } from '../../../work.ts';

const descriptor = (fd: number, fileId: number) => ({ fd, fileId, closeOnExec: false });

const group: Holders = {
  files: {
    files: [],
    tables: [
      { filesId: 1, descriptors: [descriptor(3, 10), descriptor(4, 11), descriptor(5, 10)] },
      { filesId: 2, descriptors: [descriptor(7, 10)] },
    ],
  },
  processes: [
    { pid: 100, filesId: 1 },
    { pid: 101, filesId: 1 },
    { pid: 102, filesId: 2 },
  ],
};

suite('who holds a file of a group', () => {
  test('is the first process that has it, by its first descriptor, or the wanted one', () => {
    const holderOf = holdersIn(group);
    assert.deepEqual(holderOf(10), [{ pid: 100, fd: 3 }]);
    assert.deepEqual(holderOf(11), [{ pid: 100, fd: 4 }]);
    assert.deepEqual(holderOf(10, 102), [{ pid: 102, fd: 7 }]);
    assert.deepEqual(holderOf(11, 102), [{ pid: 100, fd: 4 }]);
    assert.deepEqual(holderOf(12), []);
  });

  test('is known of all files from one look at the tables', () => {
    assertInProportion((things) => {
      const descriptors = Array.from({ length: things }, (_, i) => descriptor(i, i));
      const many = {
        files: { files: [], tables: [{ filesId: 1, descriptors }] },
        processes: group.processes,
      };
      return elementsLookedAt(() => {
        const holderOf = holdersIn(many);
        for (const { fd, fileId } of descriptors) assert.deepEqual(holderOf(fileId), [{ pid: 100, fd }]);
      });
    });
  });
});
