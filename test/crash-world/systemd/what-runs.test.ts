import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  groupsInScopes,
  type Looking,
  noteReleased,
  noteWhatRuns,
  unitOf,
} from '../../../src/crash-world/systemd/what-runs.ts';
import { printReport, styleFor } from '../../../src/report/print.ts';
import type { IncidentReport } from '../../../src/report/schema.ts';
import { emptyReport } from '../../report/example.ts';

/** Processes 1 to 4 of group 1, restored. */
function restored(): IncidentReport {
  const nothing = { reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] };
  const processes = [1, 2, 3, 4].map((pid) => ({
    pid,
    comm: `p${pid}`,
    group: 1,
    outcome: 'restored' as const,
    ...nothing,
  }));
  return { ...emptyReport(), processes };
}

/** Process 1 runs in a service, 2 is gone, 3 is another process, 4 is a zombie that nobody has waited for. */
const look: Looking = {
  stat: (pid) =>
    ({
      1: { startTicks: 10, isZombie: false },
      3: { startTicks: 99, isZombie: false },
      4: { startTicks: 40, isZombie: true },
    })[pid],
  cgroup: (pid) =>
    ({
      1: '/system.slice/web.service/sub',
      3: '/system.slice/cron.service',
      4: '/otherworld.slice/otherworld-1.scope',
    })[pid],
};
const groups = [
  {
    group: 1,
    processes: [1, 2, 3, 4].map((pid) => ({ pid, startTicks: pid * 10, isZombie: false })),
  },
];

test('a settled report says what runs now, and where; a pid that is another process by now is not it', () => {
  const report = restored();
  noteWhatRuns(groups, report, look);
  assert.deepEqual(
    report.processes.map(({ adopted, ended }) => adopted ?? ended),
    ['web.service', ...new Array(3).fill('while the system booted')],
  );
  const text = printReport(report, styleFor(false));
  assert.match(text, /^1 of 4 protected processes run again, 3 more came back and have ended since$/m);
  assert.match(text, /^ +2 {2}p2 +restored {2}has ended since, while the system booted$/m);
});

test('a process that was restored as a zombie is there as one; one that ended before the boot has ended', () => {
  const report = restored();
  const zombie = [{ group: 1, processes: [{ pid: 4, startTicks: 40, isZombie: true }] }];
  noteWhatRuns(zombie, report, look);
  assert.equal(report.processes[3]?.adopted, 'otherworld-1.scope');
  assert.equal(report.processes[1]?.ended, 'before the system booted');
});

test('after a resurrection that was broken off, what is in the scope of its group was restored', () => {
  assert.deepEqual(groupsInScopes(restored(), look), [
    { group: 1, processes: [{ pid: 4, startTicks: 40, isZombie: true }], limits: {} },
  ]);
});

test('a resurrection that was broken off while it let processes go has restored those that are in their scopes', () => {
  const report = restored();
  for (const process of report.processes) process.outcome = 'pending';
  noteReleased(report, [], look);
  assert.deepEqual(
    report.processes.map(({ outcome }) => outcome),
    ['pending', 'pending', 'pending', 'restored'],
  );
  assert.equal(groupsInScopes(report, look).length, 1);
});

test('what is in its service since it was made again was restored, and no other process of this number', () => {
  const released = (startTicks: number): (string | undefined)[] => {
    const report = restored();
    const [process] = report.processes;
    if (process === undefined) assert.fail();
    Object.assign(process, { outcome: 'pending', group: 1, unit: 'web.service' });
    const inUnit = {
      stat: () => ({ startTicks: 70, isZombie: false }),
      cgroup: () => '/system.slice/web.service/below',
    };
    noteReleased(report, [{ processes: [{ pid: process.pid, startTicks, isZombie: false }] }], inUnit);
    return [process.outcome];
  };
  assert.deepEqual(released(70), ['restored']);
  assert.deepEqual(released(60), ['pending']);
});

test('the unit of a process is the first one in the path of its cgroup', () => {
  assert.equal(unitOf('/system.slice/web.service/x.service'), 'web.service');
  assert.equal(unitOf('/otherworld.slice/otherworld-7.scope'), 'otherworld-7.scope');
  assert.equal(unitOf('/by-hand'), '/by-hand');
});
