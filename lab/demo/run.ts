import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { printReport, styleFor } from '../../src/report/print.ts';
import { type IncidentReport, reportSchema } from '../../src/report/schema.ts';
import { bootArmedGuest } from '../armed.ts';
import { removedOnFailure, removeGuest, unlessBrokenOffWith } from '../boot.ts';
import { LabError } from '../error.ts';
import { guestPaths, guestPid } from '../guest.ts';
import { guestClock } from '../guest-time.ts';
import { checkImages } from '../image.ts';
import type { GuestOptions } from '../machine.ts';
import { panicGuest } from '../panic.ts';
import type { Progress } from '../progress.ts';
import type { Release } from '../release.ts';
import { checkSizes } from '../sizes.ts';
import { acknowledgedNow, type Load, lookAtLoad, startLoad } from './load.ts';
import { type CounterStatus, describeCounter, observe, readCounter, wasCheckedWhole } from './observation.ts';
import { buildPrograms, knownOrbits, type Programs } from './programs.ts';
import {
  askPython,
  demoPackages,
  hasOrbitsResult,
  inGuest,
  protectScene,
  setScene,
  startCounting,
  startOrbits,
  until,
  waitForOrbits,
} from './scene.ts';
import { type Evidence, type Row, verify } from './verify.ts';

/** How the demo is to run. */
export interface DemoOptions {
  readonly guest: string;
  readonly release: Release;
  readonly cpus: number;
  /** Starts from a snapshot of a guest that is armed; the first one makes it. */
  readonly quick: boolean;
  /** Leaves the guest running at the end. */
  readonly keep: boolean;
}

/** What the demo shows on the way; `--json` shows nothing. */
export interface DemoDisplay {
  readonly progress: Progress;
  /** A screen or a few lines for people. */
  show(title: string, text: string): void;
}

/** Longest time from the fault to the crash world's report. */
const panicWaitSeconds = 600;

/** Longest time in which the counter goes all through its memory, of the guest's own time. */
const WHOLE_CHECK_SECONDS = 200;

const typedAfterwards = 'And this was typed in the other world.';

/**
 * The whole demo in a guest of its own: sets the scene, kills the kernel, compares.
 *
 * @throws LabError if the guest, a program or the crash world does not come as far as a comparison
 */
export async function runDemo(options: DemoOptions, display: DemoDisplay): Promise<Row[]> {
  const { guest, release, cpus } = options;
  const { progress } = display;
  const sizes = { memoryMiB: 2048, cpus, crashKernelMiB: 320 };
  checkSizes(sizes, true);
  checkImages([release]);
  const programs = await buildPrograms(release, progress);
  const show = (): Promise<Row[]> => bootAndDemonstrate(options, sizes, programs, display);
  return options.keep ? show() : unlessBrokenOffWith(guest, progress, show);
}

async function bootAndDemonstrate(
  { guest, release, quick, keep }: DemoOptions,
  sizes: Pick<GuestOptions, 'memoryMiB' | 'cpus' | 'crashKernelMiB'>,
  programs: Programs,
  display: DemoDisplay,
): Promise<Row[]> {
  const machine = { name: guest, release, packages: [...demoPackages], forwards: [], append: '', quick };
  const booted = bootArmedGuest({ ...machine, ...sizes }, display.progress);
  await (keep ? booted : removedOnFailure(booted));
  try {
    return await demonstrate(guest, programs, display);
  } finally {
    if (!keep) await removeGuest(guest);
  }
}

/** The demo in a guest that is armed. */
export async function demonstrate(guest: string, programs: Programs, display: DemoDisplay): Promise<Row[]> {
  await setScene(guest, programs, display.progress);
  await protectScene(guest, display.progress);
  await startCounting(guest, display.progress);
  return verify(await panicAndLook(guest, programs, display));
}

async function panicAndLook(guest: string, programs: Programs, display: DemoDisplay): Promise<Evidence> {
  const pythonBefore = await askPython(guest, 'before');
  const before = await observe(guest);
  display.show('JOE, an unsaved document', before.joeScreen);
  display.show('JOE with a crash procedure', before.rescueScreen);
  display.show('Python, with variables', before.pythonScreen);
  display.show('Redis: keys, and a digest of all of them', before.redisKeys);
  if (before.counter === undefined) throw new LabError('the counter has ended before the panic');
  display.show('counter', describeCounter(before.counter));
  const load = await startLoad(guest, display.progress);
  display.show('Redis under load', describeLoad(load));
  const { steps, pid } = await startOrbits(guest, display.progress);
  const known = await knownOrbits(programs.orbits, steps);
  const acknowledgedBefore = await acknowledgedNow(guest);
  const orbits = { pid, known, isEarly: !(await hasOrbitsResult(guest)) };
  const console = guestPaths(guest).consoleLog;
  const consoleBytes = readFileSync(console).length;
  const start = performance.now();
  const incident = await panicGuest(
    guest,
    { fault: 'sysrq', waitSeconds: panicWaitSeconds, unarmed: false },
    display.progress,
  );
  if (incident === undefined) throw new LabError('the guest panicked, but no incident was reported');
  const words = panicWords(readFileSync(console).subarray(consoleBytes).toString('latin1'));
  display.show('the dying kernel', words.join('\n') || '(silence)');
  display.progress.step('looking at everything again');
  const seen = { before, pythonBefore, orbits, load, acknowledgedBefore };
  return look(guest, display, { ...seen, start, incident, words });
}

function describeLoad({ pid, requestsPerSecond }: Load): string {
  return `${requestsPerSecond} requests per second by TCP, all from PID ${pid}, which is not protected`;
}

interface Known extends Pick<Evidence, 'before' | 'pythonBefore' | 'orbits' | 'load'> {
  readonly acknowledgedBefore: number;
  readonly start: number;
  readonly incident: string;
  readonly words: readonly string[];
}

async function look(guest: string, display: DemoDisplay, known: Known): Promise<Evidence> {
  const { before, pythonBefore, orbits, load, words } = known;
  const report = await readReport(guest, known.incident);
  display.show(`otherworld report ${known.incident}`, printReport(report, styleFor(false)));
  display.progress.step('waiting for the result of the computation');
  const orbitsAfter = await waitForOrbits(guest).catch(missing);
  display.progress.step('waiting until the counter has been through all its memory again');
  await waitForWholeCheck(guest, before.counter);
  const loadAfter = await lookAtLoad(guest, load, known.acknowledgedBefore);
  const after = await observe(guest);
  const secondsSincePanic = (performance.now() - known.start) / 1000;
  display.show('JOE, afterwards', after.joeScreen);
  display.show('JOE with a crash procedure, afterwards', after.rescueScreen);
  const joeGoesOn = await typeMore(guest);
  const pythonAfter = await askPython(guest, 'after').catch(missing);
  return {
    ...{
      before,
      after,
      pythonBefore,
      orbits,
      orbitsAfter,
      load,
      loadAfter,
      pythonAfter,
      joeGoesOn,
      typedAfterwards,
      report,
      secondsSincePanic,
    },
    lastWords: words.find((line) => line.includes('Kernel panic'))?.replace(/^\[ *[\d.]+\] /, ''),
  };
}

/**
 * Waits until the counter has been all through its memory since the panic. The table tells if it never was,
 * or if there is no counter any more.
 */
async function waitForWholeCheck(guest: string, before: CounterStatus | undefined): Promise<void> {
  if (before === undefined) return;
  const elapsed = guestClock(guestPid(guest) ?? 0);
  for (;;) {
    const now = await readCounter(guest);
    if (now === undefined || wasCheckedWhole(before, now) || elapsed() > WHOLE_CHECK_SECONDS) return;
    await sleep(1000);
  }
}

/** @returns the screen that shows what was typed; empty if none does */
async function typeMore(guest: string): Promise<string> {
  const pane = '-L demo send-keys -t joe';
  await inGuest(guest, `tmux ${pane} -l ' ${typedAfterwards}'`).catch(missing);
  const screen = 'tmux -L demo capture-pane -p -J -t joe';
  return until(guest, `${screen} | grep -qF '${typedAfterwards}' && ${screen}`, 30).catch(missing);
}

/** What cannot be had is missing in the table, which says so. */
function missing(error: unknown): string {
  if (error instanceof LabError) return '';
  throw error;
}

async function readReport(guest: string, incident: string): Promise<IncidentReport> {
  const text = await inGuest(guest, `cat /var/lib/otherworld/incidents/${incident}/report.json`);
  return reportSchema.parse(JSON.parse(text));
}

/** The lines from the panic's cause to its end, without the stack dump in between. */
function panicWords(console: string): string[] {
  const lines = console.split(/\r?\n/);
  return lines.filter((line) => /sysrq: Trigger|Kernel panic|\bBUG:|Oops:/.test(line)).slice(0, 8);
}
