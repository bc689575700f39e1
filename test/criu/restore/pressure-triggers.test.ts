import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
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

const OF_CGROUP = readFileSync('/proc/self/mountinfo', 'utf8')
  .split('\n')
  .filter((line) => / - cgroup2 /.test(line))
  .map((line) => join(line.split(' ')[4] ?? '', 'memory.pressure'))
  .find((path) => existsSync(path));

for (const path of [OF_CGROUP, FILE]) {
  test(`the offset of ${path ?? 'a file of a cgroup'} stays where it was`, {
    skip: (path === undefined || !existsSync(path)) && 'this kernel tells of no pressure',
  }, () => {
    const fd = openSync(path ?? assert.fail(), 'r+');
    const position = () => /^pos:\t(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
    try {
      assert.equal(readSync(fd, Buffer.alloc(7)), 7);
      setPressureTriggers([{ pid: process.pid, fd, text: 'some 500000 2000000' }]);
      assert.equal(position(), '7');
    } finally {
      closeSync(fd);
    }
  });
}
