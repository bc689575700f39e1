import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { dumpPath } from '../vmcore/fixtures.ts';

const main = join(import.meta.dirname, '../../src/cli/main.ts');

describe('a command whose output cannot be written', () => {
  it('says so in one line and ends with status 1, whatever it is', () => {
    const commands = [['--version'], ['inspect', dumpPath('debian13'), 'ps']];
    for (const args of commands) {
      const full = openSync('/dev/full', 'w');
      try {
        const { status, stderr } = spawnSync(process.execPath, [main, ...args], {
          stdio: ['ignore', full, 'pipe'],
          encoding: 'utf8',
        });
        assert.equal(status, 1, args.join(' '));
        assert.match(stderr, /^otherworld: the output cannot be written: .*no space left on device.*\n$/);
      } finally {
        closeSync(full);
      }
    }
  });

  it('ends with status 1 where not even that can be said', () => {
    const full = openSync('/dev/full', 'w');
    try {
      const { status, signal } = spawnSync(process.execPath, [main, '--help'], {
        stdio: ['ignore', full, full],
      });
      assert.deepEqual([status, signal], [1, null]);
    } finally {
      closeSync(full);
    }
  });
});
