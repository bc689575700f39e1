import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { untriedSwap } from '../../src/linux/readers/swap-areas.ts';
import { adviceFor } from '../../src/report/advice.ts';
import { groupReasons } from '../../src/report/causes.ts';
import {
  createIncident,
  IncidentError,
  latestIncident,
  listIncidents,
  loadReport,
  newReport,
  resumeReport,
  saveReport,
} from '../../src/report/incident.ts';
import { printReport, styleFor } from '../../src/report/print.ts';
import { printWhy } from '../../src/report/print-why.ts';
import { printableArguments } from '../../src/report/printable.ts';
import {
  type IncidentReport,
  type ProcessReport,
  reportJsonSchema,
  reportSchema,
} from '../../src/report/schema.ts';
import { explainProcess } from '../../src/report/why.ts';
import { emptyReport } from './example.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-report-'));
after(() => rmSync(directory, { recursive: true }));

function process(pid: number, more: Partial<ProcessReport>): ProcessReport {
  const nothing = { reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] };
  return { pid, comm: `p${pid}`, verdict: 'sound', outcome: 'restored', ...nothing, ...more };
}

const full: IncidentReport = {
  ...emptyReport(),
  panic: {
    at: '2026-01-01T12:00:00.000Z',
    message: 'Kernel panic - not syncing: sysrq triggered crash',
    release: '6.12.0',
    uptimeSeconds: 4000,
    cpu: 1,
    process: { pid: 9, comm: 'sh', uid: 0 },
  },
  processes: [
    process(1, { adopted: 'web.service', notes: ['has lost a note'] }),
    process(2, {
      verdict: 'refused',
      outcome: 'refused',
      reasons: ['has an established TCP connection to 10.0.2.2:5432 (fd 7)'],
    }),
    process(3, { verdict: 'repaired', repairs: [{ what: 'VMA count', used: '12', instead: '13' }] }),
  ],
  unmatchedRules: ['--command joe'],
};

test('reports come back as they were saved; the latest one is the last', () => {
  const first = createIncident(new Date('2026-01-01T12:00:00.700Z'), directory);
  const second = createIncident(new Date('2026-01-01T12:00:00.900Z'), directory);
  assert.deepEqual([first, second], ['2026-01-01T12-00-00Z', '2026-01-01T12-00-00Z-2']);
  assert.equal(statSync(join(directory, first)).mode & 0o777, 0o700);
  saveReport({ ...full, id: first }, directory);
  assert.deepEqual(loadReport(first, directory), { ...full, id: first });
  assert.equal(statSync(join(directory, first, 'report.json')).mode & 0o777, 0o600);
  assert.deepEqual(listIncidents(directory), [first, second]);
  assert.equal(latestIncident(directory), second);
});

test('a missing, unfinished or damaged report is named', () => {
  assert.throws(() => loadReport('2026-01-01T12-00-00Z-2', directory), /has no report yet/);
  assert.throws(() => loadReport('2020-01-01T00-00-00Z', directory), /no incident .*; there are 2026-/);
  assert.throws(() => loadReport('../../etc', directory), IncidentError);
  writeFileSync(join(directory, '2026-01-01T12-00-00Z-2', 'report.json'), '{"version": 2}');
  assert.throws(() => loadReport('2026-01-01T12-00-00Z-2', directory), /is damaged/);
});

function refused(...reasons: string[]): string {
  return printReport(
    { ...full, processes: [process(2, { outcome: 'refused', verdict: 'refused', reasons })] },
    styleFor(false),
  );
}

test('however many reasons one cause gives, it is one line, and no other cause is hidden', () => {
  const connections = Array.from(
    { length: 18 },
    (_, i) => `has an established TCP connection to 10.0.2.2:${5432 + i} (fd ${7 + i})`,
  );
  const threads = Array.from({ length: 529 }, (_, i) => `thread ${i} is about to be told apart`);
  const text = refused(...connections, ...threads, 'has a seccomp filter');
  assert.match(
    text,
    /TCP connection to 10\.0\.2\.2:5432 \(fd 7\); and 17 more like it \(10\.0\.2\.2:5433 fd 8, .*5437 fd 12 and 12 more\)$/m,
  );
  assert.match(
    text,
    /thread 0 is about to be told apart; and 528 more like it \(1, 2, 3, 4, 5 and 523 more\)$/m,
  );
  assert.match(text, /^ +has a seccomp filter$/m);
  assert.equal(text.match(/TCP connection to/g)?.length, 1);
});

test('what follows from another reason is not told besides it', () => {
  const files = [
    'maps a file that cannot be kept: has /usr/bin/memcached open in a mount namespace of its own',
    'has /usr/bin/memcached open in a mount namespace of its own',
  ];
  const namespace = 'is in a mnt namespace of its own';
  const texts = (sentences: readonly string[]): string[] => groupReasons(sentences).map(({ text }) => text);
  assert.deepEqual(texts([namespace, ...files]), [namespace]);
  assert.deepEqual(texts(files), files);
});

test('what different words say are different causes, in the order in which they were found', () => {
  const reasons = [
    'is in a net namespace of its own',
    'is in a mnt namespace of its own',
    'has a seccomp filter',
  ];
  assert.deepEqual(
    groupReasons(reasons).map(({ text, count }) => [text, count]),
    reasons.map((text) => [text, 1]),
  );
  assert.deepEqual(
    groupReasons([
      'has a pipe to PID 9 (less), which is not protected',
      'has a pipe to PID 12 (sh), which is not protected',
    ]).map(({ text }) => text),
    ['has a pipe to PID 9 (less), which is not protected; and 1 more like it (12 sh)'],
  );
});

test('what can be done about the reasons is said once for all processes', () => {
  const reasons = ['has an open io_uring (fd 7)', 'has a seccomp filter'];
  const processes = [2, 3].map((pid) => process(pid, { outcome: 'refused', reasons }));
  const text = printReport({ ...full, processes }, styleFor(false));
  assert.match(
    text,
    /^What to do$\n {2}2 processes: let the program do without io_uring.*\n {2}2 processes: a seccomp filter comes/m,
  );
  assert.doesNotMatch(printReport({ ...full, processes: [process(1, {})] }, styleFor(false)), /What to do/);
});

test('of an incident without stages no empty table of stages is printed', () => {
  const stage = { name: 'boot', startSeconds: 0, durationSeconds: 1, outcome: 'done' } as const;
  const stages = [{ ...stage, memoryTotalBytes: 1, memoryUsedBytes: 1 }];
  assert.doesNotMatch(printReport({ ...full, stages: [] }, styleFor(false)), /^Stages,/m);
  assert.match(printReport({ ...full, stages }, styleFor(false)), /^Stages,/m);
});

test('for every reason that the documents name there is something to say', () => {
  for (const page of ['processes', 'files']) {
    const text = readFileSync(new URL(`../../docs/${page}.md`, import.meta.url), 'utf8');
    const [, refused = ''] = text.split('## Refused, in these words');
    const rows = (refused.split('\n## ')[0] ?? '').split('\n').filter((line) => line.startsWith('| `'));
    assert.ok(rows.length > 5);
    const sentences = rows.flatMap(
      (row) => row.split(' | ')[0]?.match(/`(has|is|uses|shares|may|runs)[^`]+`/g) ?? [],
    );
    assert.deepEqual(
      sentences
        .map((sentence) => sentence.slice(1, -1))
        .filter((sentence) => adviceFor(sentence) === undefined),
      [],
    );
  }
});

test('registers that no stage zero saved have a remedy, and a moment that tells nothing has none', () => {
  const remedy = /otherworld doctor tells whether stage zero/;
  const computing = 'thread 7 was computing on CPU 2: its vector registers';
  for (const why of ['are lost', 'are lost: the processor could not be asked for them'])
    assert.match(adviceFor(`${computing} ${why}`) ?? '', remedy);
  for (const reason of [
    `${computing} cannot be told: by last_cpu they were on CPU 1`,
    'thread 7 was having its vector registers saved by the kernel',
    'thread 7 was on CPU 2, and nothing tells in what state',
    'has memory protection keys (pkey_alloc) and was on a CPU, which had its rights to them',
    'has an io_uring with requests in flight (fd 4)',
    'has an io_uring that was being changed (fd 4)',
    'has an io_uring that has something to do (fd 4)',
    'has an io_uring whose next request waits for all before it (fd 4)',
  ])
    assert.match(adviceFor(reason) ?? '', /a matter of the moment/);
});

test('an io_uring that has counted too far is made anew with its program, others have another remedy', () => {
  assert.match(adviceFor('has an io_uring that has taken 4 requests: counting ...') ?? '', /counts from 0/);
  for (const rings of ['3 io_urings that take', 'an io_uring that takes'])
    assert.match(adviceFor(`has ${rings} 75 s to make again, with ...`) ?? '', /counts from 0/);
  const inGroup = 'is in a group whose io_urings take 75 s to make again, one process after the other';
  assert.match(adviceFor(inGroup) ?? '', /counts from 0/);
  const disabled = 'has an io_uring, and kernel.io_uring_disabled is 2 by now';
  assert.match(adviceFor(disabled) ?? '', /io_uring_disabled=0, .* or restart/);
  assert.match(adviceFor('has an io_uring with registered files') ?? '', /do without io_uring/);
});

test('a connection to a socket that was renamed has another remedy outside of a sandbox than in one', () => {
  const outside = 'has a unix socket connected to /run/x, which cannot be made: that is bound later';
  assert.match(adviceFor(outside) ?? '', /renamed after it was bound/);
  assert.match(adviceFor('its sandbox has /run/x: that is bound later') ?? '', /sandbox/);
});

test('the remedy for memory in swap is one that helps: another area, another disk, none at all', () => {
  const because = (why: string): string | undefined =>
    adviceFor(`the memory area 0x1000-0x2000 has 1 pages in swap, the first at 0x1000: ${why}`);
  assert.match(
    because('the swap area zram0 is in compressed memory (zram), which is not read') ?? '',
    /^swap to/,
  );
  const untried = because(untriedSwap('6.1.0-57-cloud-amd64') ?? '') ?? '';
  assert.match(untried, /MemorySwapMax=0/);
  assert.doesNotMatch(untried, /swap to/);
  for (const why of [
    'the swap area sda2 is not the only one of its kind: sda2, sdb2',
    'the swap file /swapfile is on another disk than before the panic',
    'the swap area sda is on sda, which cannot be told from other disks after a panic',
  ])
    assert.match(because(why) ?? '', /without a copy of it/);
  for (const why of [
    'slot 6 of the swap area vda2 is in the swap cache by its map, which differs',
    'its entry in the page table is damaged',
    'swap area 0 is damaged: it is of number 3 and 64 slots',
  ])
    assert.match(because(why) ?? '', /is damaged, which may be what killed the kernel/);
  const poisoned = 'slot 6 of the swap area vda2 could not be read, or is poisoned';
  assert.match(because(poisoned) ?? '', /has failed there/);
});

test('that nobody was protected is said only where it is known', () => {
  const stage = {
    name: 'selection',
    startSeconds: 1,
    durationSeconds: 1,
    memoryTotalBytes: 2,
    memoryUsedBytes: 1,
  };
  const of = (outcome: 'done' | 'failed') =>
    printReport({ ...emptyReport(), stages: [{ ...stage, outcome }] }, styleFor(false));
  assert.match(of('done'), /^No protected process was running\.$/m);
  for (const text of [of('failed'), printReport(emptyReport(), styleFor(false))]) {
    assert.match(text, /^Which protected processes were running is not known\.$/m);
  }
});

test('no escape sequence of a name reaches the terminal', () => {
  const text = printReport(
    { ...full, processes: [process(1, { comm: 'a\u001b[2J\u009b' })] },
    styleFor(false),
  );
  assert.match(text, /a\\x1b\[2J\\x9b/);
  assert.doesNotMatch(text, /(?!\n)\p{Cc}/u);
});

test('people read what came back, what did not and why', () => {
  const text = printReport(full, styleFor(false));
  assert.match(text, /^ +note: has lost a note$/m);
  assert.match(text, /^2 of 3 protected processes run again$/m);
  assert.match(text, /^ +1 {2}p1 +restored {2}in web\.service$/m);
  assert.match(
    text,
    /^ +2 {2}p2 +refused$\n +has an established TCP connection to 10\.0\.2\.2:5432 \(fd 7\)$/m,
  );
  assert.match(text, /repaired: VMA count: 12 instead of 13/);
  assert.match(text, /^no process matched --command joe$/m);
  assert.match(text, /up 1 h 6 min/);
  assert.match(text, /320 MiB reserved, at most 176 MiB used until old memory was taken back \(1024 MiB\)/);
});

test('which of the outcomes it was is told, with what was lost; older reports do not say', () => {
  const what = 'the connection to 10.0.2.2:5432 is reset: it is one that was being worked on';
  const lossy = process(5, { fate: 'with-losses', losses: [{ kind: 'connections', what }] });
  const report = { ...full, processes: [process(4, { fate: 'whole' }), lossy, process(6, {})] };
  const text = printReport(report, styleFor(false));
  assert.match(text, /^3 of 3 protected processes run again$/m);
  assert.match(text, /^ +4 {2}p4 +restored +whole$/m);
  assert.match(text, new RegExp(`^ +5 {2}p5 +restored +with losses\\n +lost: ${what}$`, 'm'));
  assert.match(text, /^ +6 {2}p6 +restored$/m);
  const other = { ...lossy, losses: [{ kind: 'sockets', what }] };
  assert.equal(reportSchema.safeParse({ ...full, processes: [other] }).success, false);
});

test('who came back for its procedure alone is told from others, with what nobody expects to lose', () => {
  const losses = [
    { kind: 'descriptors' as const, what: 'fd 5 is gone: it watches what is gone as well' },
    { kind: 'threads' as const, what: 'thread 8 (worker) is gone, which was in read' },
  ];
  const crashProcedure = { delivery: 'call' as const, state: 'exited' as const, detail: 'with status 75' };
  const refusedFor = ['has an open [io_uring] (fd 6)', 'thread 8 is traced by a debugger'];
  const one = process(7, { fate: 'for-its-procedure', losses, refusedFor, crashProcedure });
  const report = { ...full, processes: [one] };
  assert.equal(reportSchema.safeParse(report).success, true);
  const text = printReport(report, styleFor(false));
  assert.match(text, /^ +7 {2}p7 +restored +for its procedure alone, crash procedure exited$/m);
  assert.match(text, /^ +lost: fd 5 is gone: it watches what is gone as well$/m);
  // What is to be mended, and how, as of one that is refused.
  assert.match(text, /^ +would be refused: has an open \[io_uring\]/m);
  assert.match(text, /^ +would be refused: thread 8 is traced by a debugger$/m);
  assert.match(text, /^ +1 process: let the program do without io_uring/m);
  const why = printWhy(explainProcess(report, 7), styleFor(false));
  assert.match(why, /Why it may not go on\n +has an open \[io_uring\]/);
  assert.match(why, /What to do\n +let the program do without io_uring/);
});

test('what is in use at the end of a stage can be compared with what is reserved', () => {
  const MIB = 2 ** 20;
  const stage = { startSeconds: 1, durationSeconds: 1, outcome: 'done' as const };
  const [small, large] = [
    { ...stage, name: 'images', memoryTotalBytes: 264 * MIB, memoryUsedBytes: 120 * MIB },
    { ...stage, name: 'memory', memoryTotalBytes: 1264 * MIB, memoryUsedBytes: 130 * MIB },
  ];
  const text = printReport({ ...full, stages: [small, large] }, styleFor(false));
  assert.match(text, /images .* 176 of 320 MiB used$/m);
  assert.match(text, /memory .* 130 of 1264 MiB used$/m);
});

test('processes of one name are told apart by their command lines', () => {
  const text = printReport(
    {
      ...full,
      processes: [process(1, { commandLine: 'nginx: worker process' }), process(2, { exe: '/bin/x' })],
    },
    styleFor(false),
  );
  assert.match(text, /^ +1 {2}p1 +restored\n +nginx: worker process$/m);
  assert.match(text, /^ +2 {2}p2 +restored\n +\/bin\/x$/m);
});

test('there is colour on a terminal only', () => {
  assert.ok(!printReport(full, styleFor(false)).includes('\u001b'));
  assert.ok(printReport(full, styleFor(true)).includes('\u001b[32m'));
});

test('the published schema is the one that reports are checked with', () => {
  const published: unknown = JSON.parse(
    readFileSync(new URL('../../docs/report.schema.json', import.meta.url), 'utf8'),
  );
  assert.deepEqual(published, reportJsonSchema());
  assert.equal(reportSchema.safeParse({ ...full, surprise: 1 }).success, false);
});

test('a report that is damaged before it is finished is kept, and the work goes on in a new one', () => {
  const id = createIncident(new Date('2026-02-01T12:00:00Z'), directory);
  saveReport({ ...newReport(id, '6.12.0', 0), notes: ['a note'] }, directory);
  assert.deepEqual(resumeReport(id, '6.12.0', directory).notes, ['a note']);
  writeFileSync(join(directory, id, 'report.json'), '{"version":');
  const report = resumeReport(id, '6.12.0', directory);
  assert.match(report.errors.join(), /is lost: .* is damaged: .*; it is kept: .*report\.json\.damaged-/);
  saveReport(report, directory);
  assert.deepEqual(loadReport(id, directory).errors, report.errors);
  const kept = report.errors[0]?.split('it is kept: ')[1] ?? '';
  assert.equal(readFileSync(kept, 'utf8'), '{"version":');
});

test('arguments are shown with blanks between them, without what a terminal would obey, and cut', () => {
  assert.equal(printableArguments(Buffer.from('nginx: worker process\0\0\0')), 'nginx: worker process');
  assert.equal(printableArguments(Buffer.from('sh\0-c\0a\nb \u001b[2J\0')), 'sh -c a b \\x1b[2J');
  assert.equal(printableArguments(Buffer.from('\0\0')), undefined);
  assert.equal(printableArguments(Buffer.from('x'.repeat(500)))?.length, 200);
});
