import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { labCache } from '../../lab/cache.ts';
import { compileCacheDirectory } from '../../src/cli/compile-cache.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-compiled-'));
after(() => rmSync(directory, { recursive: true }));

test("what root runs is not kept in a user's home, wherever HOME leads", () => {
  const roots = join(directory, 'cache');
  assert.equal(compileCacheDirectory(true, '/home/alice', roots), join(roots, 'compiled'));
  assert.equal(statSync(join(roots, 'compiled')).mode & 0o777, 0o700);
  assert.equal(compileCacheDirectory(false, '/home/alice'), '/home/alice/.cache/otherworld/compiled');
});

test('root keeps nothing where others can write, or a link leads there', () => {
  const open = join(directory, 'open');
  mkdirSync(join(open, 'compiled'), { recursive: true });
  chmodSync(open, 0o777);
  assert.equal(compileCacheDirectory(true, '/root', open), undefined);
  mkdirSync(join(directory, 'linked'));
  symlinkSync(join(open, 'compiled'), join(directory, 'linked/compiled'));
  assert.equal(compileCacheDirectory(true, '/root', join(directory, 'linked')), undefined);
});

test("what root runs of the lab is not kept in a user's home either", () => {
  const home = join(directory, 'home');
  mkdirSync(home, { mode: 0o755 });
  assert.equal(labCache(true, home), join(home, 'otherworld'));
  chmodSync(home, 0o777);
  assert.equal(labCache(true, home), '/var/cache/otherworld/lab');
  assert.equal(labCache(false, home), join(home, 'otherworld'));
});
