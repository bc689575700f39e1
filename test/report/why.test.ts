import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { IncidentError } from '../../src/report/incident.ts';
import { styleFor } from '../../src/report/print.ts';
import { printWhy } from '../../src/report/print-why.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { type ProcessReport, reportSchema } from '../../src/report/schema.ts';
import { explainProcess } from '../../src/report/why.ts';
import { emptyReport } from './example.ts';

const incidents = mkdtempSync(join(tmpdir(), 'otherworld-why-'));
after(() => rmSync(incidents, { recursive: true }));

function process(pid: number, more: Partial<ProcessReport>): ProcessReport {
  const nothing = { reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] };
  return { pid, comm: `p${pid}`, verdict: 'sound', outcome: 'restored', ...nothing, ...more };
}

const database = process(812, {
  commandLine: '/usr/bin/database --port 5432',
  protectedBy: '--unit database.service',
  unit: 'database.service',
  group: 812,
  ties: [
    { with: 813, why: 'its child' },
    { with: 813, why: 'a pipe' },
  ],
  plan: ['futex is made again: thread 812', 'allocates memory protection keys 1, for 3 areas'],
  checks: [
    { what: 'mm->map_count against the areas in the maple tree', result: 'agrees' },
    { what: 'FS base against its thread control block', result: 'differs', detail: '1 against 2' },
  ],
  verdict: 'repaired',
  repairs: [{ what: 'VMA count', used: '12', instead: '13' }],
  inDoubt: [{ tid: 812, syscall: 'write', fd: 3, reason: 'it may have been written' }],
  notes: ['has lost a note'],
  crashProcedure: { delivery: 'call', state: 'continued', detail: 'status 0' },
  adopted: 'database.service',
});

const report: IncidentReport = reportSchema.parse({
  ...emptyReport(),
  panic: {
    at: '2026-01-01T12:00:00.000Z',
    message: 'Kernel panic',
    release: '6.12.0',
    uptimeSeconds: 1,
    process: { pid: 812, comm: 'p812', uid: 0 },
  },
  processes: [
    database,
    process(813, { group: 812, ties: [{ with: 812, why: 'its parent' }] }),
    process(814, { group: 812 }),
    process(900, {
      verdict: 'refused',
      outcome: 'refused',
      reasons: ['has a seccomp filter'],
      ties: [{ with: 901, why: 'the same session' }],
    }),
    process(901, {
      outcome: 'failed',
      group: 901,
      reasons: ['criu: File x has bad size'],
    }),
  ],
  groups: [{ group: 812, plan: ['makes directories: /run/database'] }],
  unprotected: [{ pid: 77, comm: 'editor' }],
  unmatchedRules: ['--command edit'],
});

mkdirSync(join(incidents, report.id));
writeFileSync(
  join(incidents, report.id, 'restore-812.log'),
  [
    '(00.000100) Version: 4.1.1 (gitid 0)',
    '(00.000200) Forking task with 812 pid (flags 0x0)',
    '(00.000300)    812: \tOpening /lib/x at 1812',
    '(00.020000) Warn  (criu/cr-restore.c:1): something odd \u001b[2J',
  ].join('\n'),
);

const page = (pid: number, of: IncidentReport = report): string =>
  printWhy(explainProcess(of, pid, incidents), styleFor(false));

describe('report --why', () => {
  it('says on one page everything about a process', () => {
    assert.equal(
      page(812),
      `p812 (pid 812) in incident 2026-01-01T12-00-00Z: restored, and runs in database.service
  /usr/bin/database --port 5432
  of database.service before the panic
  was on the CPU that panicked

Protection
  named by --unit database.service

Verdict
  repaired
  1 check agrees
  differs: FS base against its thread control block: 1 against 2
  repaired: VMA count: 12 instead of 13

In doubt
  write on fd 3 of thread 812: it may have been written

Notes and losses
  has lost a note

Restored together with
      813  p813             restored  its child, a pipe
      814  p814             restored  through another one

Its restore
  futex is made again: thread 812
  allocates memory protection keys 1, for 3 areas

Its group's restore
  makes directories: /run/database

What CRIU said
  (00.000200) Forking task with 812 pid (flags 0x0)
  (00.020000) Warn  (criu/cr-restore.c:1): something odd \\x1b[2J
  all of it: ${join(incidents, report.id, 'restore-812.log')}

Crash procedure
  continued (by call): status 0`,
    );
  });

  it('says with what losses a process has come back', () => {
    const what = 'the connection to 10.0.2.2:5432 is reset: it is one with urgent data (MSG_OOB)';
    const processes = report.processes.map((one) =>
      one.pid === 812
        ? { ...one, fate: 'with-losses' as const, losses: [{ kind: 'connections' as const, what }] }
        : one,
    );
    const text = page(812, { ...report, processes });
    assert.match(text, /: restored with losses, and runs in database\.service$/m);
    assert.ok(text.includes(`\n\nLost, and delivered as a failure\n  ${what}\n\n`), text);
  });

  it('says of one that is not back why, what to do, and what it is tied to', () => {
    const text = page(900);
    assert.match(text, /^p900 \(pid 900\) in incident \S+: refused$/m);
    assert.match(text, /no rule names it: it comes along with an ancestor/);
    assert.match(
      page(813),
      /it comes along with p812 \(pid 812\), which is named by --unit database\.service$/m,
    );
    assert.match(
      text,
      /^Why it is not back\n {2}has a seccomp filter\n\nWhat to do\n {2}a seccomp filter comes/m,
    );
    assert.match(text, /^What it is tied to\n +901 {2}p901 +failed +the same session$/m);
    assert.doesNotMatch(text, /What CRIU said/);
    assert.match(page(901), /^What CRIU said\n {2}no log of its restore is kept$/m);
  });

  it('says of a process that has ended since, and of one that is not settled, that it is so', () => {
    const of = (more: Partial<ProcessReport>, state: IncidentReport['state']): string =>
      page(5, { ...report, state, processes: [process(5, more)] });
    assert.match(
      of({ ended: 'while the system booted' }, 'settled'),
      /: restored, and has ended since, while/,
    );
    assert.match(of({}, 'restored'), /: restored; the incident is not settled yet$/m);
    assert.match(of({ outcome: 'pending' }, 'running'), /: not decided yet$/m);
  });

  it('says of a process that no rule named that it was there', () => {
    const text = page(77);
    assert.match(text, /^editor \(pid 77\) in incident \S+: not protected$/m);
    assert.match(text, /^Rules that no process matched\n {2}--command edit$/m);
  });

  it('lists which processes there are where it does not know one', () => {
    const explain = (of: IncidentReport) => () => explainProcess(of, 5, incidents);
    assert.throws(
      explain(report),
      (error) =>
        error instanceof IncidentError &&
        /^incident \S+ has no protected process 5: there are 812 \(p812\), .*901 \(p901\)$/.test(
          error.message,
        ),
    );
    const { unprotected: _, ...older } = report;
    assert.throws(explain(older), /; which processes no rule named is not on record for this incident$/);
    assert.throws(explain(emptyReport()), /has no protected process 5: there is none;/);
  });

  it('explains processes of incidents from before all of this was on record', () => {
    const { ties: _ties, plan: _plan, ...older } = database;
    const text = page(812, { ...emptyReport(), processes: [older] });
    assert.match(text, /restored, and runs in database\.service/);
    assert.doesNotMatch(text, /Its restore|Restored together/);
  });

  it('gives the same as data', () => {
    const why = explainProcess(report, 812, incidents);
    assert.ok('process' in why);
    assert.deepEqual(why.process, database);
    assert.deepEqual(why.relatives[0], {
      pid: 813,
      comm: 'p813',
      outcome: 'restored',
      ties: ['its child', 'a pipe'],
    });
    assert.equal(why.criu?.lines.length, 2);
  });
});
