import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { limitOf, setLimit, withOpenFiles } from '../../src/system/process-settings.ts';

const RLIMIT_NOFILE = 7;

test('a step may have more open files than the process, which has its limit again afterwards', () => {
  const before = limitOf(0, RLIMIT_NOFILE);
  const few = { ...before, soft: 200n };
  setLimit(0, RLIMIT_NOFILE, few);
  const open = (): number => {
    const fds: number[] = [];
    try {
      for (let i = 0; i < 400; i++) fds.push(openSync('/dev/null', 'r'));
    } finally {
      for (const fd of fds) closeSync(fd);
    }
    return fds.length;
  };
  try {
    assert.throws(open, /EMFILE/);
    assert.equal(withOpenFiles(400, open), 400);
    assert.deepEqual(limitOf(0, RLIMIT_NOFILE), few);
    assert.throws(() => withOpenFiles(400, () => assert.fail('as it is')), /as it is/);
    const held: number[] = [];
    setLimit(0, RLIMIT_NOFILE, { ...few, soft: 1000n });
    try {
      for (let i = 0; i < 700; i++) held.push(openSync('/dev/null', 'r'));
      assert.equal(withOpenFiles(400, open), 400);
    } finally {
      for (const fd of held) closeSync(fd);
      setLimit(0, RLIMIT_NOFILE, few);
    }
    assert.deepEqual(limitOf(0, RLIMIT_NOFILE), few);
    setLimit(0, RLIMIT_NOFILE, before);
    assert.equal(
      withOpenFiles(10, () => limitOf(0, RLIMIT_NOFILE).soft),
      before.soft,
    );
  } finally {
    setLimit(0, RLIMIT_NOFILE, before);
  }
});
