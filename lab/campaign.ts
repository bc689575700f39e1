import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type IncidentReport, reportSchema } from '../src/report/schema.ts';
import { bootArmedGuest } from './armed.ts';
import { removedOnFailure, removeGuest } from './boot.ts';
import { copyFiles, execChecked } from './channel.ts';
import { buildOrbits, knownOrbits } from './demo/programs.ts';
import type { Fault } from './fault.ts';
import { panicGuest } from './panic.ts';
import type { Progress } from './progress.ts';
import type { Release } from './release.ts';

/** Panics at random moments of a guest at work. */
export interface CampaignOptions {
  /** The guests' names are this and a number. */
  readonly guest: string;
  readonly release: Release;
  readonly panics: number;
  /** What is random follows from this. */
  readonly seed: number;
}

/** What became of one piece of work. */
export type JobOutcome = 'right' | 'wrong' | 'refused' | 'ended without a result' | 'not finished';

/** One panic. */
export interface PanicOutcome {
  readonly fault: Fault;
  /** On which CPU; undefined for a fault that is none's. */
  readonly cpu: number | undefined;
  /** Since the work began. */
  readonly afterSeconds: number;
  readonly restored: number;
  readonly refused: number;
  /** Why processes were refused, those that only belong to them left out. */
  readonly reasons: readonly string[];
  /** System calls of which it could not be told whether they had taken effect: `make (12): read: ...`. */
  readonly inDoubt: readonly string[];
  readonly stageZeroMilliseconds: number | undefined;
  readonly jobs: Readonly<Record<string, JobOutcome>>;
}

const CPUS = 4;
const PACKAGES = ['criu', 'gcc', 'libc6-dev', 'make', 'python3', 'sysbench', 'zstd'];
const DIRECTORY = '/srv/campaign';
/** The work begins when it is there: a guest at work takes long to be told what is protected. */
const BEGIN = `${DIRECTORY}/begin`;
const FAULTS: readonly Fault[] = ['sysrq', 'bug', 'oops', 'nmi'];
const EARLIEST_SECONDS = 5;
const LATEST_SECONDS = 40;
const RESULT_SECONDS = 1800;

/** A piece of work with a result that is known. */
interface Job {
  readonly name: string;
  /** A shell script; its last command writes the result to standard output. */
  readonly script: string;
  readonly expected: string;
}

const SOURCES = 48;
const CHAIN = 300_000;
const EVENTS = 1500;
const STEPS = 60_000;

/** Each of the files is compiled; the program that is linked of them adds up what they say. */
const BUILD = `cd ${DIRECTORY}/build && make -s -j${CPUS} && ./program`;
const makeSources = `
mkdir -p ${DIRECTORY}/build; cd ${DIRECTORY}/build
for i in $(seq ${SOURCES}); do
  { for k in $(seq 40); do echo "static long f\${k}(long x) { for (long n = 0; n < 9; n++) x = x * 3 + n % (x | 1); return x; }"; done
    echo "long part$i(void) { long s = 0; for (long n = 0; n < 5; n++) s += $i * n + 0 * f1(n); return s; }"; } >part$i.c
done
{ for i in $(seq ${SOURCES}); do echo "long part$i(void);"; done
  echo '#include <stdio.h>'; echo 'int main(void) { long sum = 0;'
  for i in $(seq ${SOURCES}); do echo "sum += part$i();"; done
  printf '%s\\n' 'printf("%ld\\n", sum); return 0; }'; } >main.c
printf 'program: main.o $(patsubst %%.c,%%.o,$(wildcard part*.c))\\n\\tgcc -o $@ $^\\n.c.o:\\n\\tgcc -O2 -w -c -o $@ $<\\n' >Makefile`;

const makeData = `python3 -c "
import random
random.seed(4)
with open('${DIRECTORY}/data', 'wb') as file:
    for _ in range(96):
        file.write(random.randbytes(65536) + bytes(range(256)) * 768)
"; sha256sum <${DIRECTORY}/data`;

function chain(): string {
  let value = Buffer.from('otherworld');
  for (let i = 0; i < CHAIN; i++) value = createHash('sha256').update(value).digest();
  return value.toString('hex');
}

async function jobsOf(guest: string, orbits: string): Promise<Job[]> {
  await inGuest(guest, makeSources);
  const data = await inGuest(guest, makeData, 300);
  const sum = Array.from({ length: SOURCES }, (_, i) => (i + 1) * 10).reduce((a, b) => a + b, 0);
  return [
    { name: 'make', script: BUILD, expected: String(sum) },
    {
      name: 'zstd',
      // Not xz, which restricts itself with Landlock on Debian 13, and is refused for that.
      script: `cd ${DIRECTORY} && zstd -q -17 -T${CPUS} -f data && zstd -q -dc data.zst | sha256sum`,
      expected: data.trim(),
    },
    {
      name: 'sysbench',
      script: `sysbench cpu --threads=${CPUS} --time=0 --events=${EVENTS} run | sed -n 's/.*total number of events: *//p'`,
      expected: String(EVENTS),
    },
    {
      name: 'python',
      script: `python3 -c "
import hashlib
value = b'otherworld'
for _ in range(${CHAIN}): value = hashlib.sha256(value).digest()
print(value.hex())"`,
      expected: chain(),
    },
    {
      name: 'orbits',
      script: `${DIRECTORY}/orbits ${STEPS} ${DIRECTORY}/orbits.said && cat ${DIRECTORY}/orbits.said`,
      expected: await knownOrbits(orbits, STEPS),
    },
  ];
}

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

/**
 * Runs the panics, each in a guest of its own with 4 CPUs, all of them at work.
 * @param told after each
 * @throws LabError if a guest or a crash world does not come as far as a report
 */
export async function runCampaign(
  options: CampaignOptions,
  progress: Progress,
  told: (outcome: PanicOutcome) => void = () => undefined,
): Promise<PanicOutcome[]> {
  const random = randomNumbers(options.seed);
  const orbits = await buildOrbits(progress);
  const outcomes: PanicOutcome[] = [];
  for (let i = 0; i < options.panics; i++) {
    const fault = FAULTS[Math.floor(random() * FAULTS.length)] ?? 'sysrq';
    const cpu = Math.floor(random() * CPUS);
    const afterSeconds = EARLIEST_SECONDS + random() * (LATEST_SECONDS - EARLIEST_SECONDS);
    const moment = { fault, cpu: fault === 'nmi' ? undefined : cpu, afterSeconds };
    progress.step(`panic ${i + 1} of ${options.panics}: ${fault} after ${afterSeconds.toFixed(1)} s of work`);
    const outcome = await onePanic(`${options.guest}-${i}`, options.release, orbits, moment, progress);
    outcomes.push(outcome);
    told(outcome);
  }
  return outcomes;
}

type Moment = Pick<PanicOutcome, 'fault' | 'cpu' | 'afterSeconds'>;

async function onePanic(
  guest: string,
  release: Release,
  orbits: string,
  moment: Moment,
  progress: Progress,
): Promise<PanicOutcome> {
  const sizes = { memoryMiB: 3072, cpus: CPUS, crashKernelMiB: 320 };
  const machine = {
    name: guest,
    release,
    packages: PACKAGES,
    forwards: [],
    append: '',
    quick: true,
    ...sizes,
  };
  await removedOnFailure(bootArmedGuest(machine, progress));
  try {
    await inGuest(guest, `mkdir -p ${DIRECTORY}`);
    await copyFiles(guest, orbits, `${guest}:${DIRECTORY}/orbits`);
    const jobs = await jobsOf(guest, orbits);
    const pids = new Map<string, number>();
    for (const job of jobs) pids.set(job.name, await start(guest, job));
    await inGuest(guest, `otherworld protect ${[...pids.values()].map((pid) => `--pid ${pid}`).join(' ')}`);
    await inGuest(guest, `touch ${BEGIN}`);
    await sleep(moment.afterSeconds * 1000);
    const options = { fault: moment.fault, cpu: moment.cpu, waitSeconds: 900, unarmed: false };
    const incident = await panicGuest(guest, options, progress);
    const text = await inGuest(guest, `cat /var/lib/otherworld/incidents/${incident}/report.json`);
    const report = reportSchema.parse(JSON.parse(text));
    const outcomes: [string, JobOutcome][] = [];
    for (const job of jobs)
      outcomes.push([job.name, await outcomeOf(guest, job, pids.get(job.name) ?? 0, report)]);
    return { ...moment, ...countsOf(report), jobs: Object.fromEntries(outcomes) };
  } finally {
    await removeGuest(guest);
  }
}

/** Starts a job in a shell of its own, which waits until all are to begin. @returns the shell's pid */
async function start(guest: string, { name, script }: Job): Promise<number> {
  const file = `${DIRECTORY}/${name}`;
  await execChecked(guest, ['sh', '-c', `cat >${file}.sh`], { input: script, timeoutSeconds: 60 });
  const begin = `until [ -e ${BEGIN} ]; do sleep 1; done`;
  const run = `${begin}; sh ${file}.sh >${file}.part 2>${file}.error && mv ${file}.part ${file}.result`;
  return Number(await inGuest(guest, `setsid sh -c '${run}' </dev/null >/dev/null 2>&1 & echo $!`));
}

function inGuest(guest: string, script: string, timeoutSeconds = 120): Promise<string> {
  return execChecked(guest, ['sh', '-c', script], { timeoutSeconds });
}

/** Waits until a job has a result or is gone. */
async function outcomeOf(guest: string, job: Job, pid: number, report: IncidentReport): Promise<JobOutcome> {
  const file = `${DIRECTORY}/${job.name}.result`;
  const before = (await inGuest(guest, `cat ${file} 2>/dev/null || true`)).trim();
  const known = report.processes.find((process) => process.pid === pid);
  if (before === '' && known !== undefined && known.outcome !== 'restored') return 'refused';
  const ended = `[ -s ${file} ] || ! kill -0 ${pid} 2>/dev/null`;
  const wait = `i=0; until ${ended}; do sleep 2; i=$((i + 2)); [ $i -lt ${RESULT_SECONDS} ] || exit 0; done`;
  await inGuest(guest, wait, RESULT_SECONDS + 600);
  const result = (await inGuest(guest, `cat ${file} 2>/dev/null || true`)).trim();
  if (result !== '') return result === job.expected ? 'right' : 'wrong';
  const isAlive = (await inGuest(guest, `kill -0 ${pid} 2>/dev/null && echo yes || true`)).trim() === 'yes';
  return isAlive ? 'not finished' : 'ended without a result';
}

function countsOf(
  report: IncidentReport,
): Pick<PanicOutcome, 'restored' | 'refused' | 'reasons' | 'inDoubt' | 'stageZeroMilliseconds'> {
  const restored = report.processes.filter(({ outcome }) => outcome === 'restored');
  const refused = report.processes.filter(({ outcome }) => outcome !== 'restored' && outcome !== 'ended');
  return {
    restored: restored.length,
    refused: refused.length,
    reasons: refused
      .flatMap(({ pid, comm, reasons }) => reasons.map((reason) => `${comm} (${pid}): ${reason}`))
      .filter((reason) => !/ which cannot come back$/.test(reason)),
    inDoubt: restored.flatMap(({ pid, comm, inDoubt }) =>
      inDoubt.map(({ syscall, reason }) => `${comm} (${pid}): ${syscall}: ${reason}`),
    ),
    stageZeroMilliseconds: report.stageZero?.milliseconds,
  };
}
