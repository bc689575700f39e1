import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IncidentReport } from '../../src/report/schema.ts';
import { copyFiles, execChecked } from '../channel.ts';
import { buildOrbits, knownOrbits } from '../demo/programs.ts';
import { inGuest } from '../demo/scene.ts';
import type { Progress } from '../progress.ts';
import {
  type CampaignOptions,
  countsOf,
  type Moment,
  panicAndReport,
  type ReportCounts,
  randomMoment,
  runPanics,
  withArmedGuest,
} from './panics.ts';

/** What became of one piece of work. */
export type JobOutcome = 'right' | 'wrong' | 'refused' | 'ended without a result' | 'not finished';

/** One panic. */
export interface PanicOutcome extends Moment, ReportCounts {
  readonly jobs: Readonly<Record<string, JobOutcome>>;
}

const CPUS = 4;
const PACKAGES = ['criu', 'gcc', 'libc6-dev', 'make', 'python3', 'sysbench', 'zstd'];
const DIRECTORY = '/srv/campaign';
/** The work begins when it is there: a guest at work takes long to be told what is protected. */
const BEGIN = `${DIRECTORY}/begin`;
const LIMITS = { earliestSeconds: 5, latestSeconds: 40 };
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

/**
 * Runs the panics, each in a guest of its own with 4 CPUs, all of them at work.
 * @param told after each
 * @throws LabError if a guest or a crash world does not come as far as a report
 */
export async function runComputingCampaign(
  options: CampaignOptions,
  progress: Progress,
  told: (outcome: PanicOutcome) => void = () => undefined,
): Promise<PanicOutcome[]> {
  const orbits = await buildOrbits(progress);
  const sizes = { memoryMiB: 3072, cpus: CPUS, crashKernelMiB: 320 };
  const machine = { release: options.release, packages: PACKAGES, forwards: [], append: '', quick: true };
  return runPanics(
    options,
    progress,
    (random) => randomMoment(random, CPUS, LIMITS),
    (name, moment) =>
      withArmedGuest({ name, ...machine, ...sizes }, progress, (guest) =>
        onePanic(guest, orbits, moment, progress),
      ),
    told,
  );
}

async function onePanic(
  guest: string,
  orbits: string,
  moment: Moment,
  progress: Progress,
): Promise<PanicOutcome> {
  await inGuest(guest, `mkdir -p ${DIRECTORY}`);
  await copyFiles(guest, orbits, `${guest}:${DIRECTORY}/orbits`);
  const jobs = await jobsOf(guest, orbits);
  const pids = new Map<string, number>();
  for (const job of jobs) pids.set(job.name, await start(guest, job));
  await inGuest(guest, `otherworld protect ${[...pids.values()].map((pid) => `--pid ${pid}`).join(' ')}`);
  await inGuest(guest, `touch ${BEGIN}`);
  await sleep(moment.afterSeconds * 1000);
  const report = await panicAndReport(guest, moment, progress);
  const outcomes: [string, JobOutcome][] = [];
  for (const job of jobs)
    outcomes.push([job.name, await outcomeOf(guest, job, pids.get(job.name) ?? 0, report)]);
  return { ...moment, ...countsOf(report), jobs: Object.fromEntries(outcomes) };
}

/** Starts a job in a shell of its own, which waits until all are to begin. @returns the shell's pid */
async function start(guest: string, { name, script }: Job): Promise<number> {
  const file = `${DIRECTORY}/${name}`;
  await execChecked(guest, ['sh', '-c', `cat >${file}.sh`], { input: script, timeoutSeconds: 60 });
  const begin = `until [ -e ${BEGIN} ]; do sleep 1; done`;
  const run = `${begin}; sh ${file}.sh >${file}.part 2>${file}.error && mv ${file}.part ${file}.result`;
  return Number(await inGuest(guest, `setsid sh -c '${run}' </dev/null >/dev/null 2>&1 & echo $!`));
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
