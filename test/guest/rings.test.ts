// Boots one armed guest with a program that has used io_uring in many ways and waits in it, and with one that
// has a request in flight, and kills its kernel.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, release, type TestGuest } from './harness.ts';

const IDLE = '/root/rings';
const BUSY = '/root/busy-rings';

suite(`io_uring with ${release}`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let idle = 0;
  let busy = 0;
  let checked = '';

  before(async () => {
    guest = await bootTestGuest('rings');
    await guest.program('rings');
    await guest.sh(`mkdir -p ${IDLE} ${BUSY}`);
    idle = await guest.background(`exec rings ${IDLE}`);
    busy = await guest.background(`exec rings ${BUSY} busy`);
    for (const directory of [IDLE, BUSY]) await guest.until(`grep -q ready ${directory}/state`, 120);
    checked = (await guest.exec(['otherworld', 'check', `${idle}`, `${busy}`])).stdout;
    await guest.protect([idle, busy]);
    report = await guest.panic();
  });
  after(() => guest?.down());

  test('comes back with what had been counted, read and not read, and who waits in it', async () => {
    assertRestored(report, idle);
    await guest.sh(`touch ${IDLE}/go`);
    await guest.until(`! grep -q ready ${IDLE}/state`, 120);
    assert.equal(await guest.sh(`cat ${IDLE}/state`), 'ok');
  });

  test('is refused by name with a request in flight', () => {
    const process = report.processes.find(({ pid }) => pid === busy);
    assert.equal(process?.outcome, 'refused');
    assert.match(process?.reasons.join('; ') ?? '', /has an io_uring with requests in flight \(fd \d+\)/);
    assert.match(checked, /has an io_uring with requests in flight/);
  });
});
