import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { copyFiles } from '../lab/channel.ts';
import { inGuest, until } from '../lab/demo/scene.ts';
import { LabError } from '../lab/error.ts';
import { panicGuest, readReport } from '../lab/panic.ts';
import type { Progress } from '../lab/progress.ts';
import type { IncidentReport } from '../src/report/schema.ts';
import { markdownTable } from './document.ts';
import { withGuest, withScratch } from './guest.ts';
import { dumpDead } from './tasks.ts';
import { median, race } from './timing.ts';

/** What many.py can have many of. */
const KINDS = ['descriptors', 'connections', 'areas', 'threads'] as const;
type Kind = (typeof KINDS)[number];

/** A program of many.py. */
interface Program {
  readonly kind: Kind | 'none';
  readonly size: number;
  readonly pid: number;
}

const GUEST_MIB = 2048;
const MIB = 2 ** 20;
const DIRECTORY = '/root/bench';
/** Seconds of the guest's own time in which a program has made everything, or has looked at it. */
const READY_SECONDS = 600;
/** Seconds of the guest's own time from a panic to the report. */
const PANIC_SECONDS = 1800;

/** Sizes for each kind, in ascending order; a thread is a tenth of them. */
const SIZES = { whole: [1250, 2500, 5000, 10_000], quick: [250, 500, 1000] } as const;

function sizesOf(kind: Kind, quick: boolean): number[] {
  return SIZES[quick ? 'quick' : 'whole'].map((size) => (kind === 'threads' ? size / 10 : size));
}

/**
 * Processes with very many of one thing: whether the time that each part of a resurrection takes is in
 * proportion to how many there are. Capture and images from a vmcore, the restore in a panic.
 *
 * @returns Markdown
 */
export async function benchScale(quick: boolean, progress: Progress): Promise<string> {
  const captured = await measureCapture(quick, progress);
  const restored = await measureRestore(quick, progress);
  return `${captured}\n\n${restored}`;
}

/** Starts a program, and waits until it has made everything. */
async function start(guest: string, kind: Program['kind'], size: number): Promise<Program> {
  const directory = `${DIRECTORY}/${kind}-${size}`;
  const command = `python3 ${DIRECTORY}/many.py ${kind} ${size} ${directory}`;
  const pid = await inGuest(
    guest,
    `mkdir -p ${directory}; setsid ${command} </dev/null >/dev/null 2>${directory}/errors & echo $!`,
  );
  await until(guest, `test -e ${directory}/ready || ! kill -0 ${pid}`, READY_SECONDS);
  const errors = await inGuest(guest, `cat ${directory}/errors`);
  if (errors !== '') throw new LabError(`many.py ${kind} ${size}: ${errors}`);
  return { kind, size, pid: Number(pid) };
}

async function bringProgram(guest: string): Promise<void> {
  await inGuest(guest, `mkdir -p ${DIRECTORY}`);
  await copyFiles(guest, join(import.meta.dirname, 'many.py'), `${guest}:${DIRECTORY}/many.py`);
}

/** Has a program look at all that it has. @throws LabError if something is not as it was */
async function look(guest: string, { kind, size, pid }: Program): Promise<void> {
  const answer = `${DIRECTORY}/${kind}-${size}/answer`;
  await inGuest(guest, `rm -f ${answer}; kill -USR1 ${pid}`);
  await until(guest, `test -e ${answer} || ! kill -0 ${pid}`, READY_SECONDS);
  const text = await inGuest(guest, `cat ${answer}`);
  if (text.trim() !== 'ok') throw new LabError(`${kind} ${size} is not as it was: ${text}`);
}

const stageResult = z.object({ capture: z.number(), images: z.number(), mebibytes: z.number() });
type StageResult = z.infer<typeof stageResult>;

async function measureCapture(quick: boolean, progress: Progress): Promise<string> {
  const rounds = quick ? 2 : 5;
  return withScratch((GUEST_MIB + 512) * MIB, async (directory) => {
    const dump = join(directory, 'vmcore');
    const guest = { memoryMiB: GUEST_MIB, arm: false };
    const { programs, kernel } = await withGuest('scale', guest, progress, async (name, state) => {
      await bringProgram(name);
      const started = [await start(name, 'none', 0)];
      for (const kind of KINDS)
        for (const size of sizesOf(kind, quick)) {
          progress.step(`starting a program with ${size} ${kind}`);
          started.push(await start(name, kind, size));
        }
      await dumpDead(name, dump);
      return { programs: started, kernel: state.kernelRelease };
    });
    progress.step(`capturing each program, ${rounds} rounds and one to warm up`);
    const results = await captureAll(directory, dump, programs, rounds);
    return [
      `Python programs (many.py) with so many of one thing, in a guest of ${GUEST_MIB} MiB (Linux ${kernel}) that died; all in one dump, so that each`,
      `capture also reads who has what of the others. Medians of ${rounds} rounds in turn, after one that warms up; each is a process of its own. "Growth" is`,
      'the time above that of a program with nothing, for each thing, to that of the smallest program of the kind: 1.00 is in proportion.',
      '',
      markdownTable(
        ['', 'capture s', 'growth', 'images s', 'growth', 'memory MiB'],
        programs.map((program) => captureRow(program, programs, results)),
      ),
    ].join('\n');
  });
}

async function captureAll(
  directory: string,
  dump: string,
  programs: readonly Program[],
  rounds: number,
): Promise<ReadonlyMap<Program, StageResult>> {
  const images = join(directory, 'images');
  const found = new Map(programs.map((program) => [program, [] as StageResult[]]));
  const stage = [process.execPath, join(import.meta.dirname, 'scale-stage.ts'), dump];
  await race(
    programs.map((program) => ({
      name: `${program.kind} ${program.size}`,
      command: [...stage, String(program.pid), images],
      before: () => {
        rmSync(images, { recursive: true, force: true });
        mkdirSync(images, { mode: 0o700 });
      },
      after: (output) => found.get(program)?.push(stageResult.parse(JSON.parse(output))),
    })),
    rounds,
  );
  const middle = (all: readonly StageResult[], what: keyof StageResult): number =>
    median(all.slice(1).map((result) => result[what]));
  return new Map(
    [...found].map(([program, all]) => [
      program,
      {
        capture: middle(all, 'capture'),
        images: middle(all, 'images'),
        mebibytes: middle(all, 'mebibytes'),
      },
    ]),
  );
}

function captureRow(
  program: Program,
  all: readonly Program[],
  results: ReadonlyMap<Program, StageResult>,
): string[] {
  const name = program.kind === 'none' ? 'nothing' : `${program.size} ${program.kind}`;
  const own = results.get(program)!;
  const growth = (what: 'capture' | 'images'): string =>
    growthOf(program, all, (other) => results.get(other)?.[what] ?? Number.NaN);
  return [
    name,
    ...[own.capture.toFixed(3), growth('capture')],
    ...[own.images.toFixed(3), growth('images')],
    own.mebibytes.toFixed(0),
  ];
}

/** Time for each thing to that of the smallest program of the kind, without what none of them takes. */
function growthOf(
  program: Program,
  all: readonly Program[],
  secondsOf: (program: Program) => number,
): string {
  const [base] = all.filter(({ kind }) => kind === 'none').map(secondsOf);
  const smallest = all.find(({ kind }) => kind === program.kind);
  if (program.kind === 'none' || smallest === undefined || base === undefined) return '';
  const each = (one: Program): number => (secondsOf(one) - base) / one.size;
  return (each(program) / each(smallest)).toFixed(2);
}

/** One panic with a program of each kind and each of some sizes, all of them protected. */
async function measureRestore(quick: boolean, progress: Progress): Promise<string> {
  const guest = { memoryMiB: GUEST_MIB, arm: true };
  return withGuest('scale-restore', guest, progress, async (name, { kernelRelease }) => {
    await bringProgram(name);
    const programs = [await start(name, 'none', 0)];
    for (const kind of KINDS)
      for (const size of sizesOf(kind, quick).slice(-3)) {
        progress.step(`starting a program with ${size} ${kind}`);
        programs.push(await start(name, kind, size));
      }
    for (const { pid } of programs) await inGuest(name, `otherworld protect --pid ${pid}`);
    const id = await panicGuest(
      name,
      { fault: 'sysrq', waitSeconds: PANIC_SECONDS, unarmed: false },
      progress,
    );
    const report = await readReport(name, id ?? '');
    requireRestored(report, programs);
    for (const program of programs) await look(name, program);
    const rows = programs.map((program) => restoreRow(program, programs, report));
    return [
      `The same programs, of three sizes, in one panic of a guest of ${GUEST_MIB} MiB (Linux ${kernelRelease}), protected and restored together; afterwards each has`,
      'looked at all that it has and found it as it was. "CRIU" is `criu restore` alone, "restore" is that with what is done before and after it, and the look at what was restored.',
      '',
      markdownTable(['', 'CRIU s', 'growth', 'restore s', 'growth'], rows),
      '',
      `The stages of that panic: ${stagesOf(report)}. At the peak ${(report.memory.peakUsedBytes / MIB).toFixed(0)} MiB of the reserved memory were in use.`,
    ].join('\n');
  });
}

function requireRestored({ processes, errors }: IncidentReport, programs: readonly Program[]): void {
  const problems = programs.flatMap(({ kind, size, pid }) => {
    const entry = processes.find((one) => one.pid === pid);
    return entry?.outcome === 'restored'
      ? []
      : [`${kind} ${size}: ${entry?.outcome ?? 'unknown'}: ${entry?.reasons.join('; ') ?? ''}`];
  });
  if (problems.length + errors.length > 0)
    throw new LabError(`not everything came back: ${[...problems, ...errors].join('; ')}`);
}

function restoreRow(program: Program, all: readonly Program[], report: IncidentReport): string[] {
  const secondsOf = (of: Program): { criu: number; all: number } => {
    const group = report.processes.find(({ pid }) => pid === of.pid)?.group;
    const found = report.groups?.find((one) => one.group === group)?.restoreSeconds;
    return found ?? { criu: Number.NaN, all: Number.NaN };
  };
  const own = secondsOf(program);
  return [
    program.kind === 'none' ? 'nothing' : `${program.size} ${program.kind}`,
    own.criu.toFixed(2),
    growthOf(program, all, (of) => secondsOf(of).criu),
    own.all.toFixed(2),
    growthOf(program, all, (of) => secondsOf(of).all),
  ];
}

function stagesOf({ stages }: IncidentReport): string {
  const shown = stages.filter(({ name }) => ['open', 'capture', 'images', 'files', 'restore'].includes(name));
  return shown.map(({ name, durationSeconds }) => `\`${name}\` ${durationSeconds.toFixed(1)} s`).join(', ');
}
