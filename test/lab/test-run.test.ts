import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { repositoryRoot } from '../../lab/node-tree.ts';
import { LONGEST, longestFirst } from '../../lab/test-run.ts';

suite('the order of guest tests', () => {
  test('begins with those that take longest, all of which there are', () => {
    for (const file of LONGEST) assert.ok(existsSync(join(repositoryRoot, file)), file);
    const at = (file: string): string => join(repositoryRoot, file);
    const [first = '', second = ''] = LONGEST;
    const files = ['test/guest/a.test.ts', second, 'test/guest/b.test.ts', first].map(at);
    const wanted = [first, second, 'test/guest/a.test.ts', 'test/guest/b.test.ts'].map(at);
    assert.deepEqual(longestFirst(files), wanted);
  });
});
