import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { answers, copyFiles, dropConnection, execCaptured } from '../lab/channel.ts';
import { inGuest, until } from '../lab/demo/scene.ts';
import { LabError } from '../lab/error.ts';
import { type GuestState, guestPaths } from '../lab/guest.ts';
import { panicGuest } from '../lab/panic.ts';
import type { Progress } from '../lab/progress.ts';
import { withQmp } from '../lab/qmp.ts';
import { type IncidentReport, reportSchema } from '../src/report/schema.ts';
import { ConsoleWatch, RESOLUTION_MS, secondsNow } from './console-watch.ts';
import { markdownTable } from './document.ts';
import { withGuest } from './guest.ts';
import { median, spread } from './timing.ts';

/** Seconds from what ended the old kernel. */
interface Coming {
  /** A kernel begins to count its time. */
  readonly kernel: number;
  /** Both services have answered the probe. */
  readonly answer: number;
}

/** One panic and one cold reboot of the same guest. */
export interface Round {
  readonly panic: Coming & { readonly restored: number };
  readonly reboot: Coming;
  readonly report: IncidentReport;
}

/** What several rounds in one guest gave. */
export interface Recovery {
  readonly rounds: readonly Round[];
  readonly guest: GuestState;
  /** What `otherworld status` says is needed of the reserved memory. */
  readonly neededBytes: number;
}

/** No round begins later than this after the first, so that a slow machine, too, comes to an end. */
const LAST_ROUND_SECONDS = 240;
const KEYS = 100_000;
const VALUE_BYTES = 512;
const GUEST_MIB = 2048;
const REDIS = 'redis-cli -s /root/bench/redis.sock';

/** Lets a guest panic and come back, and reboots it cold, in turn. */
export async function measureRecovery(quick: boolean, progress: Progress): Promise<Recovery> {
  const count = quick ? 1 : 3;
  const options = { memoryMiB: GUEST_MIB, arm: true };
  return withGuest('recovery', options, progress, async (name, guest) => {
    progress.step('starting redis, a shell program and the probe');
    await setUp(name);
    const neededBytes = await neededBytesOf(name);
    const rounds: Round[] = [];
    const end = secondsNow() + LAST_ROUND_SECONDS;
    for (let round = 1; round <= count && secondsNow() < end; round++) {
      progress.step(`panic and cold reboot, round ${round} of ${count}`);
      if (round > 1) await inGuest(name, 'otherworld arm', 200);
      rounds.push(await measureRound(name, progress));
    }
    return { rounds, guest, neededBytes };
  });
}

async function setUp(guest: string): Promise<void> {
  const file = (name: string): string => join(import.meta.dirname, name);
  await inGuest(guest, 'mkdir -p /root/bench');
  await copyFiles(guest, file('recovery-probe.py'), `${guest}:/root/bench/recovery-probe.py`);
  const input = readFileSync(file('recovery-setup.sh'));
  const { status, stderr } = await execCaptured(guest, ['sh', '-s'], { input, timeoutSeconds: 60 });
  if (status !== 0) throw new LabError(`setting up the services failed: ${stderr.trim()}`);
}

async function neededBytesOf(guest: string): Promise<number> {
  const status: unknown = JSON.parse(await inGuest(guest, 'otherworld status --json'));
  if (typeof status === 'object' && status !== null && 'neededBytes' in status)
    return Number(status.neededBytes);
  throw new LabError('otherworld status does not say how much memory is needed');
}

async function measureRound(guest: string, progress: Progress): Promise<Round> {
  await until(guest, `${REDIS} ping`, 60);
  await inGuest(guest, `${REDIS} debug populate ${KEYS} key ${VALUE_BYTES}`);
  await requireKeys(guest, 'was filled');
  const watch = new ConsoleWatch(guest);
  try {
    const { panic, report } = await measurePanic(guest, watch, progress);
    await requireKeys(guest, 'came back');
    return { panic, report, reboot: await measureReboot(guest, watch) };
  } finally {
    watch.close();
  }
}

async function requireKeys(guest: string, event: string): Promise<void> {
  const keys = Number(await inGuest(guest, `${REDIS} dbsize`));
  if (keys !== KEYS) throw new LabError(`redis ${event} with ${keys} of ${KEYS} keys`);
}

/** The probe falls silent, and what is on its way to the disk gets there: neither end is to wait for it. */
async function quiet(guest: string): Promise<void> {
  await inGuest(guest, 'touch /run/bench-quiet; sync; sleep 1');
}

async function measurePanic(
  guest: string,
  watch: ConsoleWatch,
  progress: Progress,
): Promise<Pick<Round, 'panic' | 'report'>> {
  await quiet(guest);
  const struck = secondsNow();
  const id = await panicGuest(guest, { fault: 'sysrq', waitSeconds: 200, unarmed: false }, progress);
  const text = await inGuest(guest, `cat /var/lib/otherworld/incidents/${id}/report.json`);
  const report = reportSchema.parse(JSON.parse(text));
  requireSuccess(report);
  const start = await watch.waitFor(/sysrq: Trigger a crash/, struck, 1);
  const since = (time: number): number => time - start;
  return {
    report,
    panic: {
      kernel: since(watch.kernelStart(start)),
      restored: since(await watch.waitFor(/otherworld: restore: done/, start, 1)),
      answer: since(await watch.waitFor(/bench: both answer/, start, 10)),
    },
  };
}

/** Times of an incident in which something went wrong would say nothing. */
function requireSuccess({ stages, processes, errors, memory }: IncidentReport): void {
  const lost = processes.filter(({ outcome }) => outcome !== 'restored');
  const problems = [
    ...errors,
    ...stages.filter(({ outcome }) => outcome === 'failed').map(({ name }) => `stage ${name} failed`),
    ...lost.map(({ pid, comm, reasons }) => `${comm} (${pid}): ${reasons.join(', ')}`),
    ...(processes.length < 3 ? [`${processes.length} of 3 processes are in the report`] : []),
    ...(memory.reclaimedBytes === 0 ? ['no memory was taken back'] : []),
  ];
  if (problems.length > 0) throw new LabError(`not everything came back: ${problems.join('; ')}`);
}

async function measureReboot(guest: string, watch: ConsoleWatch): Promise<Coming> {
  await quiet(guest);
  await dropConnection(guest);
  const start = secondsNow();
  await withQmp(guestPaths(guest).qmp, (qmp) => qmp.execute('system_reset'));
  const answer = await watch.waitFor(/bench: both answer/, start, 150);
  const coming = { kernel: watch.kernelStart(start) - start, answer: answer - start };
  if (!(await answers(guest, 60))) throw new LabError(`guest ${guest} did not come back from its reboot`);
  await inGuest(guest, 'systemctl is-system-running --wait || true');
  await sleep(2000);
  return coming;
}

/** Markdown of how long things took. */
export function recoverySection({ rounds, guest }: Recovery): string {
  const row = (what: string, seconds: readonly number[], base: readonly number[]): string[] => [
    what,
    ...spread(seconds).map((value) => value.toFixed(1)),
    (median(seconds) / median(base)).toFixed(2),
  ];
  const of = (pick: (round: Round) => number): number[] => rounds.map(pick);
  const reboot = of((round) => round.reboot.answer);
  const processes = rounds[0]!.report.processes.length;
  return [
    `A guest of ${guest.memoryMiB} MiB with ${guest.cpus} CPUs (Linux ${guest.kernelRelease}); ${processes} protected processes, systemd services: a redis with ${KEYS}`,
    `keys of ${VALUE_BYTES} bytes, a shell program, and a probe that asks both ten times a second and writes to the console when both have answered.`,
    `Panic (sysrq) and cold reboot (QEMU's system_reset: no firmware of real hardware, which takes up to minutes) in turn, ${rounds.length} each.`,
    `All times are those at which this machine sees lines of the guest's console, looked at every ${RESOLUTION_MS} ms. After the panic every key is there, after the`,
    'reboot none.',
    '',
    markdownTable(
      ['', 'median s', 'min s', 'max s', 'ratio'],
      [
        row(
          'cold reboot: kernel starts',
          of((round) => round.reboot.kernel),
          reboot,
        ),
        row('cold reboot: both answer', reboot, reboot),
        row(
          'panic: crash kernel starts',
          of((round) => round.panic.kernel),
          reboot,
        ),
        row(
          'panic: all protected processes run',
          of((round) => round.panic.restored),
          reboot,
        ),
        row(
          'panic: both answer',
          of((round) => round.panic.answer),
          reboot,
        ),
      ],
    ),
    '',
    `The stages from the panic to running processes, as the reports have them (medians of ${rounds.length}; [what they do](incidents.md)):`,
    '',
    stageTable(rounds),
  ].join('\n');
}

function stageTable(rounds: readonly Round[]): string {
  const names = rounds[0]!.report.stages.map(({ name }) => name);
  const shown = names.slice(0, names.indexOf('restore') + 1);
  const kernel = median(rounds.map(({ panic }) => panic.kernel));
  const rows = shown.map((name) => {
    const stages = rounds.flatMap(({ report }) => report.stages.filter((stage) => stage.name === name));
    const duration = median(stages.map(({ durationSeconds }) => durationSeconds));
    const end = median(stages.map(({ startSeconds, durationSeconds }) => startSeconds + durationSeconds));
    return [`\`${name}\``, duration.toFixed(2), (kernel + end).toFixed(1)];
  });
  return markdownTable(
    ['stage', 'takes s', 'ends, s after the panic'],
    [['panic to crash kernel', kernel.toFixed(2), kernel.toFixed(1)], ...rows],
  );
}
