import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { PAGE_SIZE, pageEnd, pageStart } from '../../src/system/page.ts';

test('a page is as large as the kernel says, and whole pages hold what lies in them', () => {
  assert.equal(PAGE_SIZE, Number(execFileSync('getconf', ['PAGE_SIZE'], { encoding: 'utf8' })));
  assert.deepEqual([0, 1, 4095, 4096, 4097].map(pageStart), [0, 0, 0, 4096, 4096]);
  assert.deepEqual([0, 1, 4095, 4096, 4097].map(pageEnd), [0, 4096, 4096, 4096, 8192]);
});
