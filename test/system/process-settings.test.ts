import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { limitOf, RLIMIT_NOFILE, withOpenFiles } from '../../src/system/process-settings.ts';
import { withDescriptorsLeft } from '../descriptors.ts';

test('a step may have more open files than the process, which has its limit again afterwards', () => {
  const before = limitOf(0, RLIMIT_NOFILE);
  const fill = (count: number): number[] => Array.from({ length: count }, () => openSync('/dev/null', 'r'));
  const open = (): number => {
    const fds = fill(400);
    for (const fd of fds) closeSync(fd);
    return fds.length;
  };
  withDescriptorsLeft(170, () => {
    const few = limitOf(0, RLIMIT_NOFILE);
    const tooMany: number[] = [];
    assert.throws(() => {
      for (;;) tooMany.push(openSync('/dev/null', 'r'));
    }, /EMFILE/);
    for (const fd of tooMany) closeSync(fd);
    assert.equal(tooMany.length, 170);
    assert.equal(withOpenFiles(400, open), 400);
    assert.deepEqual(limitOf(0, RLIMIT_NOFILE), few);
    assert.throws(() => withOpenFiles(400, () => assert.fail('as it is')), /as it is/);
    assert.deepEqual(limitOf(0, RLIMIT_NOFILE), few);
  });
  withDescriptorsLeft(970, () => {
    const held = fill(700);
    try {
      assert.equal(withOpenFiles(400, open), 400);
    } finally {
      for (const fd of held) closeSync(fd);
    }
  });
  assert.deepEqual(limitOf(0, RLIMIT_NOFILE), before);
  assert.equal(
    withOpenFiles(10, () => limitOf(0, RLIMIT_NOFILE).soft),
    before.soft,
  );
});
