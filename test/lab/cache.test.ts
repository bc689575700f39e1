import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { markUsed, removeUnused } from '../../lab/cache.ts';

suite('what nobody uses of the cache', () => {
  let parent: string;
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'otherworld-cache-'));
    for (const [name, daysAgo] of Object.entries({ 'armed-new': 0, 'armed-old': 2, other: 2, oldest: 30 })) {
      mkdirSync(join(parent, name));
      writeFileSync(join(parent, name, 'memory'), '');
      const used = new Date(Date.now() - daysAgo * 86_400_000);
      utimesSync(join(parent, name), used, used);
    }
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  test('is removed after two weeks', () => {
    removeUnused(parent);
    assert.deepEqual(readdirSync(parent).sort(), ['armed-new', 'armed-old', 'other']);
  });

  test('is removed earlier where that is wanted, and what is used is not', () => {
    removeUnused(parent, 1, (name) => name.startsWith('armed-'));
    assert.deepEqual(readdirSync(parent).sort(), ['armed-new', 'oldest', 'other']);
    markUsed(join(parent, 'oldest'));
    removeUnused(parent);
    assert.deepEqual(readdirSync(parent).sort(), ['armed-new', 'oldest', 'other']);
  });
});
