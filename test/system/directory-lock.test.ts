import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isLocked, lockDirectory } from '../../src/system/directory-lock.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-lock-'));
after(() => rmSync(directory, { recursive: true }));

test('whether a directory is locked can be seen without locking it', () => {
  assert.equal(isLocked(join(directory, 'none')), false);
  assert.equal(isLocked(directory), false);
  {
    using _lock = lockDirectory(directory);
    assert.equal(isLocked(directory), true);
  }
  assert.equal(isLocked(directory), false);
});
