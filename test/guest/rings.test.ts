// Boots one armed guest with a program that has used io_uring in many ways and waits in it, with Node.js,
// which keeps one, and with a program that has a request in flight, and kills its kernel.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, release, type TestGuest } from './harness.ts';

const IDLE = '/root/rings';
const BUSY = '/root/busy-rings';
const NODE = '/usr/lib/otherworld/node_modules/node/bin/node';
/** Counts, and asks its event loop for a file each time, which is there when all of it is. */
const COUNTS = `
  const { rename, writeFile } = require('node:fs/promises');
  let count = 0;
  setInterval(async () => {
    const part = '/root/node-counts.' + ++count;
    await writeFile(part, String(count));
    await rename(part, '/root/node-counts');
  }, 100);
`;

suite(`io_uring with ${release}`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let idle = 0;
  let busy = 0;
  let node = 0;
  let nodeRings = '';
  let checked = '';

  before(async () => {
    guest = await bootTestGuest('rings');
    await guest.program('rings');
    await guest.sh(`mkdir -p ${IDLE} ${BUSY}`);
    idle = await guest.background(`exec rings ${IDLE}`);
    busy = await guest.background(`exec rings ${BUSY} busy`);
    node = await guest.background(`exec ${NODE} -e "${COUNTS}"`);
    for (const directory of [IDLE, BUSY]) await guest.until(`grep -q ready ${directory}/state`, 120);
    await guest.until('cat /root/node-counts', 120);
    nodeRings = await guest.sh(`ls -l /proc/${node}/fd | grep -c io_uring || true`);
    checked = (await guest.exec(['otherworld', 'check', '--pid', `${idle}`, `${busy}`])).stdout;
    await guest.protect([idle, busy, node]);
    report = await guest.panic();
  });
  after(() => guest?.down());

  test('comes back with what had been counted, read and not read, and who waits in it', async () => {
    assertRestored(report, idle);
    await guest.sh(`touch ${IDLE}/go`);
    await guest.until(`! grep -q ready ${IDLE}/state`, 120);
    assert.equal(await guest.sh(`cat ${IDLE}/state`), 'ok');
  });

  test('of Node.js comes back with its event loop', async () => {
    assert.notEqual(nodeRings, '0');
    assertRestored(report, node);
    const counted = await guest.sh('cat /root/node-counts');
    await guest.until(`test "$(cat /root/node-counts)" -gt ${counted}`, 60);
    assert.equal(await guest.sh(`ls -l /proc/${node}/fd | grep -c io_uring`), nodeRings);
  });

  test('is refused by name with a request in flight', () => {
    const process = report.processes.find(({ pid }) => pid === busy);
    assert.equal(process?.outcome, 'refused');
    assert.match(process?.reasons.join('; ') ?? '', /has an io_uring with requests in flight \(fd \d+\)/);
    assert.match(checked, /has an io_uring with requests in flight/);
  });
});
