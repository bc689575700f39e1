import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { defaultConfig } from '../../../src/config/config.ts';
import { crashLoop, earlierReports } from '../../../src/crash-world/incident/crash-loop.ts';
import { saveReport } from '../../../src/report/incident.ts';
import { emptyReport } from '../../report/example.ts';

const culprit = { pid: 7, comm: 'culprit', exe: '/usr/bin/culprit', uid: 0 };
const config = defaultConfig();

function panicAt(minute: number, process = culprit) {
  const at = new Date(Date.UTC(2026, 0, 1, 12, minute)).toISOString();
  return { at, message: 'Kernel panic', release: '6.12', uptimeSeconds: 1, cpu: 0, process };
}

function report(minute: number, process = culprit) {
  return { ...emptyReport(), panic: panicAt(minute, process) };
}

test('the third incident within an hour bars the process', () => {
  assert.equal(crashLoop(panicAt(50), [report(10)], config), undefined);
  assert.match(
    crashLoop(panicAt(50), [report(10), report(30)], config) ?? '',
    /in 3 incidents within 60 minutes/,
  );
});

test('it counts with another pid, as it has after a reboot, but not with another program or user', () => {
  const reborn = { ...culprit, pid: 99 };
  assert.ok(crashLoop(panicAt(50, reborn), [report(10), report(30)], config));
  const other = { ...culprit, exe: '/usr/bin/other' };
  assert.equal(crashLoop(panicAt(50, other), [report(10), report(30)], config), undefined);
  assert.equal(crashLoop(panicAt(50, { ...culprit, uid: 1 }), [report(10), report(30)], config), undefined);
});

test('older incidents do not count, nor do those of a clock that ran ahead', () => {
  assert.equal(crashLoop(panicAt(59 + 30), [report(10), report(28)], config), undefined);
  assert.equal(crashLoop(panicAt(20), [report(30), report(31)], config), undefined);
});

test('the configuration sets how often within how long', () => {
  const strict = { ...config, 'crash-loop': { incidents: 1, 'within-minutes': 1 } };
  assert.ok(crashLoop(panicAt(0), [], strict));
});

test('an incident whose report is damaged, or of another kind altogether, costs no other one', () => {
  const incidents = mkdtempSync(join(tmpdir(), 'otherworld-earlier-'));
  const [good, damaged, odd] = ['2026-01-01T12-00-00Z', '2026-01-02T12-00-00Z', '2026-01-03T12-00-00Z'];
  saveReport({ ...emptyReport(), id: good }, incidents);
  mkdirSync(join(incidents, damaged));
  writeFileSync(join(incidents, damaged, 'report.json'), '{');
  mkdirSync(join(incidents, odd, 'report.json'), { recursive: true });
  const { reports, problems } = earlierReports('', incidents);
  rmSync(incidents, { recursive: true });
  assert.deepEqual(
    reports.map(({ id }) => id),
    [good],
  );
  assert.equal(problems.length, 2);
});
