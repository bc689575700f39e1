import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { hiddenMounts } from '../../src/model/hidden-mounts.ts';

suite('mounts that no path leads to', () => {
  const root = { id: 1, parent: 1, path: '/' };
  const run = { id: 2, parent: 1, path: '/run' };

  test('are those below what is mounted on a directory above them, and what is on those', () => {
    const mounts = [
      root,
      run,
      { id: 3, parent: 2, path: '/run/user/0' },
      { id: 4, parent: 2, path: '/run/user' },
      { id: 5, parent: 3, path: '/run/user/0/doc' },
      { id: 6, parent: 2, path: '/run/username' },
    ];
    assert.deepEqual([...hiddenMounts(mounts)], [3, 5]);
    // On the other one it is seen.
    assert.deepEqual([...hiddenMounts([root, run, mounts[3] ?? run, { ...run, id: 3, parent: 4 }])], []);
  });

  test('are those below a mount whose root is mounted over', () => {
    const over = { id: 3, parent: 2, path: '/run' };
    assert.deepEqual([...hiddenMounts([root, run, over, { id: 4, parent: 2, path: '/run/a' }])], [4]);
    assert.deepEqual([...hiddenMounts([root, run, over, { id: 4, parent: 3, path: '/run/a' }])], []);
  });

  test('are those that lead in a circle', () => {
    const circle = [
      { id: 2, parent: 3, path: '/a' },
      { id: 3, parent: 2, path: '/a' },
    ];
    assert.deepEqual([...hiddenMounts([root, ...circle])], [2, 3]);
  });
});
