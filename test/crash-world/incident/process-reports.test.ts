import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  capturedReport,
  concludePending,
  endedReport,
  noteTies,
  noteUnprotected,
  refusedReport,
  selectedReport,
} from '../../../src/crash-world/incident/process-reports.ts';
import type { Candidate } from '../../../src/crash-world/processes/select.ts';
import { printReport, styleFor } from '../../../src/report/print.ts';
import { reportSchema } from '../../../src/report/schema.ts';
import { groupOf, processOf } from '../../criu/processes.ts';
import { emptyReport } from '../../report/example.ts';

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

test('a process that was ending is neither one that is back nor one that is missing', () => {
  const report = emptyReport();
  const rule = { kind: 'command', name: 'database' } as const;
  const selection = { selected: [{ candidate, rule }], candidates: [candidate], rules: [rule] };
  const notes = ['was ending, and has ended: exit code 1; nobody waits for it'];
  report.processes.push(endedReport({ pid: 7, comm: 'database', notes }, selection));
  concludePending(report, 'a stage failed');
  const [process] = reportSchema.parse(report).processes;
  assert.deepEqual([process?.outcome, process?.unit], ['ended', 'database.service']);
  const text = printReport(report, styleFor(false));
  assert.match(text, /^0 of 0 protected processes run again, 1 more was ending$/m);
  assert.match(text, /^ +7 {2}database +ended\n(.*\n)* +note: was ending, and has ended: exit code 1/m);
});

test('what became of a process is decided when it is captured: whole, with losses, or refused', () => {
  const selection = { selected: [], candidates: [candidate], rules: [] };
  const group = groupOf([processOf(7)]);
  const [found = assert.fail()] = group.processes;
  assert.equal(capturedReport(found, group, selection).fate, 'whole');
  const loss = { kind: 'connections' as const, what: 'the connection to 10.0.2.2:5432 is reset' };
  found.findings.losses.push({ ...loss, of: '10.0.2.15:40000 10.0.2.2:5432' });
  const lossy = capturedReport(found, group, selection);
  assert.deepEqual([lossy.fate, lossy.losses], ['with-losses', [loss]]);
  assert.equal(refusedReport({ pid: 7, comm: 'x', reasons: ['uses io_uring'] }, selection).fate, 'refused');
  assert.equal(reportSchema.safeParse({ ...emptyReport(), processes: [lossy] }).success, true);
});

test('for what a process would have been refused that comes back for its procedure alone is in the report', () => {
  const selection = { selected: [], candidates: [candidate], rules: [] };
  const refusedFor = ['has an open [io_uring] (fd 7)'];
  const process = { ...processOf(7), procedureAlone: { systemCall: 0x1000, refusedFor, isReady: false } };
  process.findings.unexpected.push({ kind: 'descriptors', of: 'fd 7', fd: 7, what: 'fd 7 is gone' });
  const found = capturedReport(process, groupOf([process]), selection);
  assert.deepEqual([found.fate, found.refusedFor, found.reasons], ['for-its-procedure', refusedFor, []]);
  assert.equal(reportSchema.safeParse({ ...emptyReport(), processes: [found] }).success, true);
  assert.equal(capturedReport(processOf(8), groupOf([]), selection).refusedFor, undefined);
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

test('what ties processes together is in the report, and who ran without protection', () => {
  const report = emptyReport();
  const rule = { kind: 'command', name: 'database' } as const;
  const child = { ...candidate, pid: 8, parentPid: 7 };
  report.processes = [candidate, child].map((one) => selectedReport({ candidate: one, rule }));
  const edge = { pids: [7, 8], why: 'is its parent' } as const;
  const ties = new Map([7, 8].map((pid) => [pid, [edge]]));
  noteTies(report, ties);
  noteUnprotected(report, [
    { ...candidate, pid: 99, comm: 'z' },
    { ...candidate, pid: 9, comm: 'editor' },
    candidate,
  ]);
  const { processes, unprotected } = reportSchema.parse(report);
  assert.deepEqual(
    processes.map((process) => process.ties),
    [[{ with: 8, why: 'its child' }], [{ with: 7, why: 'its parent' }]],
  );
  assert.deepEqual(unprotected, [
    { pid: 9, comm: 'editor' },
    { pid: 99, comm: 'z' },
  ]);
});
