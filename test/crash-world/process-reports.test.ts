import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concludePending, selectedReport } from '../../src/crash-world/process-reports.ts';
import type { Candidate } from '../../src/crash-world/select.ts';
import { printReport, styleFor } from '../../src/report/print.ts';
import { reportSchema } from '../../src/report/schema.ts';
import { emptyReport } from '../report/example.ts';

const candidate: Candidate = {
  pid: 7,
  comm: 'database',
  exe: '/usr/bin/database',
  cgroup: '/system.slice/database.service',
  startTicks: 1,
  parentPid: 1,
  uid: 0,
  owner: 0,
};

test('a process that a rule names is in the report before it is captured, and stays there if that never ends', () => {
  const report = emptyReport();
  report.processes.push(selectedReport({ candidate, rule: { kind: 'command', name: 'database' } }));
  concludePending(report, 'the resurrection was broken off before it was restored');
  const [process] = reportSchema.parse(report).processes;
  assert.equal(process?.outcome, 'failed');
  assert.equal(process?.verdict, undefined);
  assert.equal(process?.unit, 'database.service');
  const text = printReport(report, styleFor(false));
  assert.match(text, /^0 of 1 protected processes run again$/m);
  assert.match(text, /^ +7 {2}database +failed\n +the resurrection was broken off before it was restored$/m);
});

test('what was decided is not decided again', () => {
  const report = emptyReport();
  const selected = selectedReport({ candidate, rule: { kind: 'command', name: 'database' } });
  report.processes.push({ ...selected, outcome: 'restored' });
  concludePending(report, 'a stage failed');
  assert.deepEqual(
    report.processes.map(({ outcome, reasons }) => [outcome, reasons]),
    [['restored', []]],
  );
});
