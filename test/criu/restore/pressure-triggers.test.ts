import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { setPressureTriggers } from '../../../src/criu/restore/pressure-triggers.ts';

const FILE = '/proc/pressure/memory';

test('a trigger for pressure is set through the open file that it belongs to', {
  skip: !existsSync(FILE) && 'this kernel tells of no pressure',
}, () => {
  const fd = openSync(FILE, 'r+');
  try {
    setPressureTriggers([{ pid: process.pid, fd, text: 'some 500000 2000000' }]);
    // An open file has one at most.
    assert.throws(() => writeSync(fd, 'some 500000 2000000\0'), { code: 'EBUSY' });
    const again = [{ pid: process.pid, fd, text: 'some 500000 2000000' }];
    assert.throws(() => setPressureTriggers(again), /^Error: the trigger for pressure of fd \d+ .* EBUSY/);
  } finally {
    closeSync(fd);
  }
});
