// Boots one armed guest that panics while processes wait for the lock of a directory: their calls, which must
// not happen twice, are made again.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, release, type TestGuest } from './harness.ts';
import { wholeText } from './whole-text.ts';

suite(`calls that wait for a directory when ${release} panics`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  const names = ['mkdir-locked', 'open-locked', 'unlink-locked', 'rename-locked'];

  before(async () => {
    guest = await bootTestGuest('waiting-calls');
    await guest.copyIn(join(import.meta.dirname, 'programs/in-calls.py'), '/root/in-calls.py');
    await guest.background('exec python3 /root/in-calls.py /run/holder getdents64-locked');
    await guest.until(wholeText('/run/holder'), 120);
    const pid = await guest.background(`exec python3 /root/in-calls.py /run/waiting ${names.join(' ')}`);
    await guest.until(wholeText('/run/waiting'), 120);
    await guest.protect([pid]);
    report = await guest.panic();
  });
  after(async () => {
    await guest?.down();
  });

  test('are made again, and have their effect once', async () => {
    const processes = report.processes.filter(({ comm }) => comm === 'python3');
    assert.equal(processes.length, names.length + 1);
    for (const { pid } of processes) assertRestored(report, pid);
    for (const name of names)
      assert.equal(await guest.until(wholeText(`/var/tmp/in-calls-${name}`), 60), 'done', name);
    assert.equal(await guest.sh('ls /srv/locked'), ['exclusive', 'fifo', 'new', 'z'].join('\n'));
  });
});
