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
  { name: 'the boot processor panics', cpus: 2, fault: 'bug', cpu: 0 },
];

const chosen = isWhole ? CASES : CASES.filter((_, i) => i === (release === 'trixie' ? 0 : 1));

/** Runs `registers` in one thread for each CPU that is online. @returns its pid */
async function fillRegisters(guest: TestGuest): Promise<number> {
  await guest.program('registers');
  await guest.sh('mkdir -p /srv/registers');
  const pid = await guest.background('exec registers $(nproc) >/srv/registers/said 2>&1');
  await guest.until('grep -q ready /srv/registers/said', 120);
  await guest.sh(`otherworld protect --pid ${pid}`);
  return pid;
}

for (const { name, cpus, append = '', fault, cpu, offline } of chosen) {
  suite(`stage zero with ${release}: ${name}`, () => {
    let guest: TestGuest | undefined;
    let report: IncidentReport | undefined;
    after(() => guest?.down());

    test('every thread goes on with every register', async (t) => {
      guest = await bootTestGuest(`zero-${fault}-${cpus}`, { cpus, append });
      if (offline !== undefined) await guest.sh(`echo 0 >/sys/devices/system/cpu/cpu${offline}/online`);
      const pid = await fillRegisters(guest);
      report = await guest.panic(fault, cpu);
      const { phase, saved, missing, milliseconds, problems } = report.stageZero ?? {};
      t.diagnostic(`${milliseconds} ms for ${saved} processors`);
      const online = cpus - (offline === undefined ? 0 : 1);
      assert.deepEqual({ phase, missing, problems }, { phase: 'done', missing: 0, problems: [] });
      assert.ok(Number(saved) >= online, `registers of ${saved} processors`);
      assertRestored(report, pid);
      await guest.until('[ "$(wc -l </srv/registers/said)" = 2 ]', 60);
      assert.equal(await guest.sh('cat /srv/registers/said'), 'ready\nwhole');
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
      await guest.sh(`otherworld protect --pid ${idle}`);
      const computing = await fillRegisters(guest);
      const { stageZeroAddress } = JSON.parse(await guest.sh('cat /run/otherworld/armed.json'));
      // In the middle of its code.
      await guest.overwrite(stageZeroAddress + 0x200, Buffer.alloc(64, 0xcc));
      const report = await guest.panic('sysrq', 0);
      assert.equal(report.stageZero?.phase, 'not entered');
      assertRestored(report, idle);
      const refused = report.processes.find(({ pid }) => pid === computing);
      assert.equal(refused?.outcome, 'refused');
      assert.match(
        refused?.reasons.join('; ') ?? '',
        /was computing on CPU \d: its vector registers are lost: .*overwritten/,
      );
    });
  });
}
