import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import type { IncidentReport, ProcessReport } from '../../src/report/schema.ts';
import { bootArmedGuest } from '../armed.ts';
import { removedOnFailure, removeGuest } from '../boot.ts';
import { makeCacheDirectory } from '../cache.ts';
import { LabError } from '../error.ts';
import type { Fault } from '../fault.ts';
import type { GuestOptions } from '../machine.ts';
import { panicGuest, readReport } from '../panic.ts';
import type { Progress } from '../progress.ts';
import type { Release } from '../release.ts';

/** Panics at random moments of guests, one in each of them. */
export interface CampaignOptions {
  /** The guests' names are this and a number. */
  readonly guest: string;
  readonly release: Release;
  readonly panics: number;
  /** What is random follows from this. */
  readonly seed: number;
}

/** When and how a kernel dies. */
export interface Moment {
  readonly fault: Fault;
  /** On which CPU; undefined for a fault that is none's. */
  readonly cpu: number | undefined;
  /** Since the work began. */
  readonly afterSeconds: number;
}

/** What a report says of all the processes of a panic. */
export interface ReportCounts {
  readonly restored: number;
  readonly refused: number;
  /** Why processes were refused, those that only belong to them left out. */
  readonly reasons: readonly string[];
  /** System calls of which it could not be told whether they had taken effect: `make (12): read: ...`. */
  readonly inDoubt: readonly string[];
  readonly stageZeroMilliseconds: number | undefined;
}

/** What is the same for all panics of a campaign. */
export interface Limits {
  readonly earliestSeconds: number;
  readonly latestSeconds: number;
}

const FAULTS: readonly Fault[] = ['sysrq', 'bug', 'oops', 'nmi'];
/** Longest time from the panic to the report: a guest at work, on a busy host. */
const REPORT_SECONDS = 900;

/** Numbers from 0 up to 1 that follow from a seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A moment, by three random numbers. */
export function randomMoment(
  random: () => number,
  cpus: number,
  { earliestSeconds, latestSeconds }: Limits,
): Moment {
  const fault = FAULTS[Math.floor(random() * FAULTS.length)] ?? 'sysrq';
  const cpu = Math.floor(random() * cpus);
  const afterSeconds = earliestSeconds + random() * (latestSeconds - earliestSeconds);
  return { fault, cpu: fault === 'nmi' ? undefined : cpu, afterSeconds };
}

/**
 * Runs the panics of a campaign, one after the other. What became of each is a line of a file in the lab's
 * cache at once, so that a run that is broken off has lost nothing.
 * @param plan what is random about the next panic; called in their order, so that all follows from the seed
 * @param onePanic boots the guest of that name, and lets it panic
 * @param told after each
 * @throws LabError if a guest or a crash world does not come as far as a report
 */
export async function runPanics<Plan extends Moment, Outcome>(
  { guest, panics, seed }: CampaignOptions,
  progress: Progress,
  plan: (random: () => number) => Plan,
  onePanic: (guest: string, plan: Plan) => Promise<Outcome>,
  told: (outcome: Outcome) => void,
): Promise<Outcome[]> {
  const random = randomNumbers(seed);
  const file = join(makeCacheDirectory('campaigns'), `${guest}-${seed}.jsonl`);
  progress.step(`seed ${seed}; what becomes of each panic is added to ${file}`);
  const outcomes: Outcome[] = [];
  for (let i = 0; i < panics; i++) {
    const planned = plan(random);
    const { fault, cpu, afterSeconds } = planned;
    const where = cpu === undefined ? '' : ` on CPU ${cpu}`;
    progress.step(`panic ${i + 1} of ${panics}: ${fault}${where} after ${afterSeconds.toFixed(1)} s of work`);
    const outcome = await onePanic(`${guest}-${i}`, planned);
    outcomes.push(outcome);
    appendFileSync(file, `${JSON.stringify(outcome)}\n`);
    told(outcome);
  }
  return outcomes;
}

/** Boots an armed guest, hands its name to `work`, and removes it, whatever happens. */
export async function withArmedGuest<T>(
  machine: GuestOptions,
  progress: Progress,
  work: (guest: string) => Promise<T>,
): Promise<T> {
  await removedOnFailure(bootArmedGuest(machine, progress));
  try {
    return await work(machine.name);
  } finally {
    await removeGuest(machine.name);
  }
}

/**
 * Kills the guest's kernel, and waits for the crash world's report.
 * @throws LabError if there is none
 */
export async function panicAndReport(
  guest: string,
  { fault, cpu }: Moment,
  progress: Progress,
): Promise<IncidentReport> {
  const options = { fault, cpu, waitSeconds: REPORT_SECONDS, unarmed: false };
  const incident = await panicGuest(guest, options, progress);
  if (incident === undefined) throw new LabError(`guest ${guest} has no incident`);
  return readReport(guest, incident);
}

/** Whether a process was to come back and has not. */
export function isRefused({ outcome }: Pick<ProcessReport, 'outcome'>): boolean {
  return outcome !== 'restored' && outcome !== 'ended';
}

/** Why processes did not come back, those left out that only belong to others: `make (12): ...`. */
export function reasonsOf(processes: readonly ProcessReport[]): string[] {
  return processes
    .filter(isRefused)
    .flatMap(({ pid, comm, reasons }) => reasons.map((reason) => `${comm} (${pid}): ${reason}`))
    .filter((reason) => !/ which cannot come back$/.test(reason));
}

export function countsOf({ processes, stageZero }: IncidentReport): ReportCounts {
  const restored = processes.filter(({ outcome }) => outcome === 'restored');
  return {
    restored: restored.length,
    refused: processes.filter(isRefused).length,
    reasons: reasonsOf(processes),
    inDoubt: restored.flatMap(({ pid, comm, inDoubt }) =>
      inDoubt.map(({ syscall, reason }) => `${comm} (${pid}): ${syscall}: ${reason}`),
    ),
    stageZeroMilliseconds: stageZero?.milliseconds,
  };
}
