// Boots guests in which every CPU computes at the panic, with a value of its own in each of its registers,
// and compares them afterwards. Each case is a guest of its own: a whole run has all of them, a quick run one
// on each release.
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import type { Fault } from '../../lab/fault.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, isWhole, release, type TestGuest } from './harness.ts';

interface Case {
  readonly name: string;
  readonly cpus: number;
  readonly append?: string;
  readonly fault: Fault;
  /** That panics. */
  readonly cpu?: number;
  /** Is taken offline before the panic. */
  readonly offline?: number;
}

/** The guests have five levels of page tables and x2APIC, unless they are told otherwise. */
const CASES: readonly Case[] = [
  {
    name: 'another than the boot processor panics, and one is offline',
    cpus: 4,
    fault: 'sysrq',
    cpu: 2,
    offline: 3,
  },
  {
    name: 'an NMI ends them in user mode, with xAPIC and four levels',
    cpus: 2,
    append: 'no5lvl nox2apic',
    fault: 'nmi',
  },
  {
    name: 'an NMI ends them, one of them on its way into or out of the kernel',
    cpus: 2,
    append: 'no5lvl nox2apic',
    fault: 'nmi-entry',
  },
  { name: 'the boot processor panics', cpus: 2, fault: 'bug', cpu: 0 },
];

const chosen = isWhole ? CASES : CASES.filter((_, i) => i === (release === 'trixie' ? 0 : 2));

type Program = 'registers' | 'calls';

/** What a moment can come to in which nothing tells a thread's registers: docs/stage-zero.md. */
const UNDECIDED =
  /nothing tells (its registers|in what state|on which)|saved by the kernel$|protection keys cannot be told$/;
const BEGIN = '/srv/begin';

/**
 * Starts a program that waits until it may begin, to be protected before: a guest of which every CPU computes
 * takes minutes to do that on a busy host.
 * @returns its pid
 */
function start(guest: TestGuest, command: string): Promise<number> {
  return guest.background(`until [ -e ${BEGIN} ]; do sleep 0.5; done; exec ${command}`);
}

/** Starts a program that will have a thread for each CPU that is online. @returns its pid */
async function startOnAll(guest: TestGuest, program: Program): Promise<number> {
  await guest.program(program);
  return start(guest, `${program} $(nproc) >/srv/${program} 2>&1`);
}

/** Lets all that are protected begin, and waits until these compute. */
async function begin(guest: TestGuest, ...programs: readonly Program[]): Promise<void> {
  await guest.sh(`touch ${BEGIN}`);
  for (const program of programs) await guest.until(`grep -q ready /srv/${program}`, 120);
}

/** What a program says in the end. */
async function said(guest: TestGuest, program: Program): Promise<string> {
  await guest.until(`[ "$(wc -l </srv/${program})" = 2 ]`, 120);
  return guest.sh(`cat /srv/${program}`);
}

/** The threads of `calls` that a call of theirs has ended, each with the call; all else has to be whole. */
function wholeBut(said: string): string[] {
  const [, butFor] = /^ready\nwhole(?:, but for (.+))?$/.exec(said) ?? assert.fail(said);
  return butFor?.split(', ').sort() ?? [];
}

for (const { name, cpus, append = '', fault, cpu, offline } of chosen) {
  suite(`stage zero with ${release}: ${name}`, () => {
    let guest: TestGuest | undefined;
    let report: IncidentReport | undefined;
    let callsPid = 0;
    let vforkPid = 0;
    after(() => guest?.down());

    test('every thread goes on with every register', async (t) => {
      guest = await bootTestGuest(`zero-${fault}-${cpus}`, { cpus, append });
      if (offline !== undefined) await guest.sh(`echo 0 >/sys/devices/system/cpu/cpu${offline}/online`);
      callsPid = await startOnAll(guest, 'calls');
      await guest.program('vfork');
      vforkPid = await start(guest, 'vfork /srv/vfork compute');
      const pid = await startOnAll(guest, 'registers');
      await guest.protect([callsPid, vforkPid, pid]);
      await begin(guest, 'calls', 'registers');
      // Two wait for a FIFO (openat), where nothing is in doubt yet; the third computes.
      const waiting = `grep -l '^257 ' $(pgrep -P ${vforkPid} | sed 's|.*|/proc/&/syscall|')`;
      await guest.until(`test $(pgrep -P ${vforkPid} | wc -l) = 3 && test $(${waiting} | wc -l) = 2`, 60);
      // Nobody has the FIFO open yet: it is there afterwards if the journal has it.
      await guest.sh('sync');
      report = await guest.panic(fault, cpu);
      const { phase, saved, missing, milliseconds, problems } = report.stageZero ?? {};
      t.diagnostic(`${milliseconds} ms for ${saved} processors`);
      const online = cpus - (offline === undefined ? 0 : 1);
      assert.deepEqual({ phase, missing, problems }, { phase: 'done', missing: 0, problems: [] });
      assert.ok(Number(saved) >= online, `registers of ${saved} processors`);
      assertRestored(report, pid);
      assert.equal(await said(guest, 'registers'), 'ready\nwhole');
    });

    test('a program in the middle of calls goes on with the right ones, or is refused by name', async (t) => {
      assert.ok(guest && report);
      const process = report.processes.find((other) => other.pid === callsPid);
      // A call that was in doubt ends with EINTR, and only the first thread makes it again.
      const ended = process?.inDoubt.filter(({ tid }) => tid !== callsPid) ?? [];
      const butFor = ended.map(({ tid, syscall }) => `${tid} ${syscall}`).sort();
      t.diagnostic(`${process?.outcome} ${process?.reasons.join('; ')}`);
      if (process?.outcome === 'refused')
        for (const reason of process.reasons) assert.match(reason, UNDECIDED);
      else {
        assertRestored(report, callsPid);
        assert.deepEqual(wholeBut(await said(guest, 'calls')), butFor);
      }
    });

    test('a process whose threads wait in vfork goes on with its children, of which one computes', async () => {
      assert.ok(guest && report);
      assertRestored(report, vforkPid);
      await guest.sh('touch /srv/vfork.go; echo hello >/srv/vfork.fifo');
      await guest.until('grep -q done /srv/vfork', 120);
      const lines = (await guest.sh('cat /srv/vfork /srv/vfork.copy 2>&1 || true')).split('\n').sort();
      const doubts = report.processes.flatMap(({ inDoubt }) =>
        inDoubt.map(({ tid, syscall }) => [tid, syscall]),
      );
      const expected = [
        'done',
        'hello',
        'missing: error 0, status 127',
        'spawn: error 0, status 0',
        'vfork: status 7, written 1, stack whole',
      ];
      assert.deepEqual(lines, expected, `in doubt: ${JSON.stringify(doubts)}; ${lines.join('; ')}`);
    });

    test('no old memory is kept for a processor that stays off', () => {
      assert.deepEqual(
        report?.notes.filter((note) => note.includes('halted')),
        [],
      );
    });
  });
}

if (isWhole) {
  suite(`a damaged stage zero with ${release}`, () => {
    let guest: TestGuest | undefined;
    after(() => guest?.down());

    test('steps aside: the crash kernel starts, who waited comes back, and who computed is refused by name', async () => {
      guest = await bootTestGuest('zero-damaged');
      const idle = await guest.background('exec sleep 3600');
      const computing = await startOnAll(guest, 'registers');
      await guest.protect([idle, computing]);
      await begin(guest, 'registers');
      const { stageZeroAddress } = JSON.parse(await guest.sh('cat /run/otherworld/armed.json'));
      // In the middle of its code.
      await guest.overwrite(stageZeroAddress + 0x200, Buffer.alloc(64, 0xcc));
      // Into the programs that compute: who panics by a command of its own takes their place on a CPU.
      const report = await guest.panic('nmi');
      assert.equal(report.stageZero?.phase, 'not entered');
      assertRestored(report, idle);
      const refused = report.processes.find(({ pid }) => pid === computing);
      if (refused?.outcome === 'restored') assert.equal(await said(guest, 'registers'), 'ready\nwhole');
      assert.equal(refused?.outcome, 'refused');
      assert.match(
        refused?.reasons.join('; ') ?? '',
        /was computing on CPU \d: its vector registers are lost: .*overwritten/,
      );
    });
  });
}
