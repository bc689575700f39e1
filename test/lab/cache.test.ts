import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { markUsed, removeUnused, tryLock } from '../../lab/cache.ts';

suite('what nobody uses of the cache', () => {
  let parent: string;
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'otherworld-cache-'));
    for (const [name, daysAgo] of Object.entries({ new: 0, old: 13, oldest: 30 })) {
      mkdirSync(join(parent, name));
      writeFileSync(join(parent, name, 'memory'), '');
      const used = new Date(Date.now() - daysAgo * 86_400_000);
      utimesSync(join(parent, name), used, used);
    }
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  test('is removed after two weeks', () => {
    removeUnused(parent);
    assert.deepEqual(readdirSync(parent).sort(), ['new', 'old']);
  });

  test('is not removed if it has been used since', () => {
    markUsed(join(parent, 'oldest'));
    removeUnused(parent);
    assert.deepEqual(readdirSync(parent).sort(), ['new', 'old', 'oldest']);
  });
});

suite('a lock', () => {
  let parent: string;
  let lock: string;
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'otherworld-lock-'));
    lock = join(parent, 'lock');
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  test('is held by one', () => {
    assert.deepEqual([tryLock(lock), tryLock(lock), tryLock(lock)], [true, false, false]);
    assert.deepEqual(readdirSync(parent), ['lock']);
    rmSync(lock);
    assert.equal(tryLock(lock), true);
  });

  test('is taken over if its holder has ended, though another process has its pid', () => {
    tryLock(lock);
    const [pid, ticks, boot] = readFileSync(lock, 'utf8').split(' ');
    const gone = {
      nobody: '4194305 1 x',
      later: `${pid} ${Number(ticks) - 1} ${boot}`,
      boot: `${pid} ${ticks} x`,
    };
    for (const [what, holder] of Object.entries({ ...gone, 'an empty file': '', 'old version': '4194305' })) {
      writeFileSync(lock, holder);
      assert.deepEqual([tryLock(lock), tryLock(lock)], [false, true], what);
      assert.deepEqual(readdirSync(parent), ['lock']);
    }
    writeFileSync(lock, `${pid}`);
    assert.deepEqual([tryLock(lock), tryLock(lock)], [false, false], 'an older version holds it');
  });

  test('that cannot be made is an error', () => {
    assert.throws(() => tryLock(join(parent, 'none', 'lock')), /ENOENT/);
  });
});
