import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { defaultTimeoutSeconds } from '../../../src/criu/restore/run-criu.ts';

test('CRIU has more time for more memory, and for more of what has no pages', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-time-limit-'));
  const make = (name: string, bytes: number) => writeFileSync(join(directory, name), Buffer.alloc(bytes));
  try {
    make('restore.log', 1 << 20);
    assert.equal(defaultTimeoutSeconds(directory), 120);
    make('pages-1.img', 20 << 20);
    assert.equal(defaultTimeoutSeconds(directory), 122);
    // About 10,000 sockets.
    make('files.img', 1000 << 10);
    assert.equal(defaultTimeoutSeconds(directory), 222);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
