// Boots one guest with a program for each way in which a crash procedure can go, and kills its kernel once.
// Some of them have what cannot be brought back, and come back for their procedure alone.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, type TestGuest } from './harness.ts';

const modes = ['continue', 'signal', 'replace', 'exit', 'fault', 'overrun'] as const;
const badRecords = ['checksum', 'entry', 'stack', 'handler'] as const;

/** Of those that come back for their procedure alone. */
const aloneModes = ['save', 'replace', 'go-on', 'crash', 'overrun', 'jump'] as const;
type AloneMode = (typeof aloneModes)[number];

type Mode = (typeof modes)[number] | (typeof badRecords)[number];

interface Status {
  readonly runs: number;
  readonly ticks: number;
  readonly id: string;
  readonly interrupted: string;
}

let guest: TestGuest;
let report: IncidentReport;
const pids = new Map<Mode, number>();
let nodePid = 0;
const alone = new Map<AloneMode, number>();
let foreseen = '';

async function status(mode: Mode): Promise<Status> {
  return JSON.parse(await guest.sh(`cat /root/procedures/${mode}`));
}

/** Lets a subject tick, and waits until it has said so. */
async function tick(mode: Mode): Promise<void> {
  const { ticks } = await status(mode);
  await guest.sh(`kill -HUP ${pids.get(mode)}`);
  await guest.until(`grep -q '"ticks":${ticks + 1},' /root/procedures/${mode}`, 20);
}

const nodeProgram = `
import { writeFileSync } from 'node:fs';
import { onKernelCrash } from '/usr/lib/otherworld/sdk/node/otherworld.js';
onKernelCrash(({ id, resurrections }) => writeFileSync('/root/procedures/told', JSON.stringify({ id, resurrections })));
setInterval(() => writeFileSync('/root/procedures/node', JSON.stringify({ at: Date.now() })), 200);
`;

/** Starts the Node.js program. */
async function startNode(): Promise<void> {
  await guest.exec(['sh', '-c', 'cat > /root/procedure.mjs'], { input: nodeProgram });
  const node = '/usr/lib/otherworld/node_modules/node/bin/node';
  nodePid = await guest.background(`exec ${node} /root/procedure.mjs`);
  await guest.until(`grep -q memfd:otherworld /proc/${nodePid}/maps && grep -q at /root/procedures/node`, 60);
}

/** Starts the programs that have an io_uring, a userfaultfd and a second thread. */
async function startAlone(): Promise<void> {
  await guest.sh('mkdir -p /root/alone');
  await guest.program('alone-subject');
  for (const mode of aloneModes) {
    const pid = await guest.background(`exec alone-subject ${mode} /root/alone`);
    alone.set(mode, pid);
    await guest.until(
      `grep -q memfd:otherworld /proc/${pid}/maps && grep -q '^230 ' /proc/${pid}/syscall`,
      20,
    );
  }
}

/** What the report says of the procedure of the subject in this mode. */
function reported(mode: Mode) {
  return report.processes.find(({ pid }) => pid === pids.get(mode))?.crashProcedure;
}

before(async () => {
  guest = await bootTestGuest('crash-procedure');
  await guest.sh('mkdir -p /root/procedures');
  await guest.program('procedure-subject');
  for (const mode of [...modes, ...badRecords]) {
    pids.set(mode, await guest.background(`exec procedure-subject ${mode} /root/procedures`));
    const clockNanosleep = 230;
    await guest.until(`grep -q '^${clockNanosleep} ' /proc/${pids.get(mode)}/syscall`, 20);
  }
  await startAlone();
  await startNode();
  foreseen = await guest.sh(`otherworld check --pid ${alone.get('save')} || true`, 600);
  await guest.protect([...pids.values(), ...alone.values(), nodePid]);
  report = await guest.panic();
});

after(() => guest?.down());

for (const mode of ['continue', 'signal'] as const) {
  test(`a procedure that continues (${mode}) has run once, knows its incident, and its process goes on`, async () => {
    assert.equal(reported(mode)?.state, 'continued');
    await tick(mode);
    const { runs, id, interrupted } = await status(mode);
    assert.deepEqual({ runs, id, interrupted }, { runs: 1, id: report.id, interrupted: 'clock_nanosleep' });
  });
}

test('a Node.js program, which has io_urings, is told of its incident, and its event loop goes on', async () => {
  const process = report.processes.find(({ pid }) => pid === nodePid);
  assert.deepEqual(process?.reasons, []);
  assert.equal(process?.crashProcedure?.state, 'continued');
  const told = JSON.parse(await guest.sh('cat /root/procedures/told'));
  assert.deepEqual(told, { id: report.id, resurrections: 1 });
  const first = await guest.sh('cat /root/procedures/node');
  await guest.until(`! grep -qF '${first}' /root/procedures/node`, 20);
});

test('a procedure that executes another program keeps its PID', async () => {
  assert.equal(reported('replace')?.state, 'replaced');
  assert.equal(await guest.sh(`cat /proc/${pids.get('replace')}/comm`), 'sleep');
});

test('a procedure that ends its process is reported with its status', async () => {
  assert.deepEqual(reported('exit')?.state, 'exited');
  assert.match(reported('exit')?.detail ?? '', /status 7/);
  assert.equal(await guest.sh(`test -e /proc/${pids.get('exit')} || echo gone`), 'gone');
});

test('rules for a pid hold for those that run again, and one that has ended costs its own only', async () => {
  assert.equal(report.stages.find(({ name }) => name === 'rules')?.outcome, 'done');
  const rules = await guest.sh('otherworld status || true');
  for (const mode of [...modes, ...badRecords].filter((one) => one !== 'exit')) {
    assert.match(rules, new RegExp(`--pid ${pids.get(mode)} +[^ ]+ \\(${pids.get(mode)}\\)`), mode);
  }
  assert.ok(!rules.includes(`--pid ${pids.get('exit')} `), rules);
});

// One that crashed is restored anew, without it; one that overran its time is taken out of it.
for (const [mode, state, runs] of [
  ['fault', 'crashed', 0],
  ['overrun', 'overran', 1],
] as const) {
  test(`a procedure that has ${state} is reported, and its process continues without it`, async () => {
    assert.equal(reported(mode)?.state, state);
    assert.equal(reported(mode)?.fallback, 'continue');
    await tick(mode);
    assert.equal((await status(mode)).runs, runs);
  });
}

for (const mode of badRecords) {
  test(`a bad record (${mode}) is ignored with the reason, and its process goes on`, async () => {
    assert.equal(reported(mode)?.state, 'ignored');
    assert.match(reported(mode)?.detail ?? '', mode === 'entry' ? /entry point/ : new RegExp(mode));
    await tick(mode);
    assert.equal((await status(mode)).runs, 0);
  });
}

test('check says before the panic who would come back for its procedure alone, and what it would lose', () => {
  assert.match(foreseen, /comes back for its procedure alone/);
  assert.match(foreseen, /^ +would be refused: .*io_uring/m);
  assert.match(foreseen, /^ +lost: fd \d+ is gone: it has an open .*io_uring/m);
  assert.match(foreseen, /^ +lost: the memory area .* is watched by a userfaultfd/m);
  assert.match(foreseen, /^ +lost: thread \d+ \(alone-subject\) is gone/m);
});

for (const [mode, state, detail] of [
  ['save', 'exited', /^with status 7$/],
  ['replace', 'replaced', /^$/],
  ['go-on', 'exited', /^with status 75, as one does that continues and may not$/],
  ['crash', 'crashed', /^by signal 4$/],
  ['overrun', 'overran', /^after 5 s; killed$/],
  ['jump', 'overran', /^after 5 s; killed$/],
] as const) {
  test(`a process without what no program expects to lose is there for its procedure alone (${mode})`, async () => {
    const entry = report.processes.find(({ pid }) => pid === alone.get(mode));
    assert.deepEqual([entry?.outcome, ...(entry?.reasons ?? [])], ['restored']);
    assert.equal(entry?.fate, 'for-its-procedure');
    assert.ok(entry?.refusedFor?.some((reason) => /io_uring/.test(reason)));
    const kinds = new Set(entry?.losses?.map(({ kind }) => kind));
    assert.deepEqual([...kinds].toSorted(), ['descriptors', 'memory', 'threads']);
    assert.equal(entry?.crashProcedure?.state, state);
    assert.match(entry?.crashProcedure?.detail ?? '', detail);
    // Never `continue`, whatever is configured.
    if (state === 'crashed' || state === 'overran') assert.equal(entry?.crashProcedure?.fallback, 'give-up');
    const { areas, ...said } = JSON.parse(await guest.sh(`cat /root/alone/${mode}`));
    const EBADF = 9;
    assert.deepEqual(said, {
      ...{ may: 0, ringLost: 1, ringRead: EBADF, faultsLost: 1, keptLost: 0, keptWrite: 5 },
      // Where lost memory was, nothing is, whatever is mapped since.
      ...{ threads: 1, second: -1, hole: 1 },
    });
    assert.ok(areas >= 2, `${areas} areas`);
    assert.equal(await guest.sh(`cat /root/alone/${mode}.kept`), 'saved');
    // What it jumps to is not to be kept from it.
    const went = await guest.sh(`test -e /root/alone/${mode}.went-on && echo on || echo never`);
    assert.equal(went, mode === 'jump' ? 'on' : 'never');
    const now = await guest.sh(`cat /proc/${alone.get(mode)}/comm 2>/dev/null || echo gone`);
    assert.equal(now, mode === 'replace' ? 'sleep' : 'gone');
  });
}

test('what a process forked that jumped out of its procedure is ended with it', async () => {
  const child = Number(await guest.sh('cat /root/alone/jump.forked'));
  assert.ok(child > 0);
  assert.equal(await guest.sh(`test -e /proc/${child} && echo there || echo gone`), 'gone');
});

test('what is executed for the last time does not get the descriptors that were lost', async () => {
  const links = await guest.sh(`ls -l /proc/${alone.get('replace')}/fd`);
  assert.doesNotMatch(links, /io_uring|userfaultfd/);
  // Those of its standard streams, one of which was lost and stays taken, and the file that it had open.
  assert.match(links, / 2 -> \/dev\/null$/m);
  assert.equal(links.match(/ -> /g)?.length, 4, links);
});
