import { mkdirSync, writeFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { dirname, join } from 'node:path';
import { isNamed, unwrittenFiles } from '../capture/files/write-back.ts';
import { loadManifest, type Manifest } from '../config/manifest.ts';
import { INCIDENTS_DIRECTORY, PAYLOAD_DIRECTORY, RUN_DIRECTORY } from '../config/paths.ts';
import { loadRules } from '../config/protection.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { type NumberRange, usedNumbers } from '../linux/pid.ts';
import { endGroupImages, makeImagesDirectory } from '../report/images.ts';
import { createIncident, incidentId, newReport, saveReport } from '../report/incident.ts';
import type { Report } from '../report/schema.ts';
import { messageWithCauses } from '../system/thrown.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { openKernel } from '../vmcore/open.ts';
import { readProfile } from '../vmcore/profile.ts';
import { scopeOf } from './adoption.ts';
import { captureStage } from './capture-stage.ts';
import { crashLoop, earlierReports } from './crash-loop.ts';
import { writeHandover } from './handover.ts';
import { handoverStage, imagedPids } from './handover-stage.ts';
import { type EndImages, type ImagedGroup, imageStage } from './image-stage.ts';
import {
  makeMemoryFiles,
  noteStalePidFiles,
  type SavedMemoryFiles,
  saveMemoryFiles,
} from './memory-files.ts';
import { mountFileSystems, mountOldTmpfs, protectOldTmpfs } from './mounts.ts';
import { describePanic, panicTimeNanoseconds, readOldLog } from './old-kernel.ts';
import { keepClear, NumberWanted } from './pids.ts';
import { openProcedureWatch, procedureStage } from './procedures.ts';
import { concludePending, selectedReport } from './process-reports.ts';
import { criuVersion, filesStage, restoreStage, spareBytes } from './restore-stage.ts';
import { readLimits } from './scope-limits.ts';
import {
  type Candidate,
  explainUnmatched,
  listCandidates,
  type Selected,
  selectProcesses,
} from './select.ts';
import { Stages, say, uptimeSeconds } from './stages.ts';
import { cpusStage, EVERYTHING, memoryStage } from './take-back.ts';
import { writeSettleUnit } from './units.ts';
import { WriteBack } from './write-back/index.ts';

/** From now on there may be processes to stay in the crash world for, whatever becomes of this program: init.sh looks for it. */
const RELEASED = join(RUN_DIRECTORY, 'released');

const VMCORE = '/proc/vmcore';

/** Where the incident is kept; in memory if the disk cannot be written to. */
export interface Place {
  readonly id: string;
  readonly incidents: string;
}

/**
 * The crash world's work before the system's init starts: the log and the incident, capture, images, the old memory and CPUs,
 * restore, and what systemd needs to take up the processes. What goes wrong is in the report.
 * @throws if the dead kernel cannot be read at all: then there is nothing to stay in the crash world for; a NumberWanted, before it has done anything, if it
 * has to be started once more
 */
export async function resurrect(): Promise<void> {
  const manifest = loadManifest();
  const begun = uptimeSeconds();
  // Incidents, rules and images may be on another file system than the root.
  const unmounted = mountFileSystems();
  const start = uptimeSeconds();
  const opened = openDeadKernel();
  const own = opened.kernel === undefined ? undefined : ownNumbers(opened.kernel);
  const panicAt =
    opened.kernel === undefined ? BigInt(Date.now()) * 1_000_000n : panicTimeNanoseconds(opened.kernel);
  const place = openIncident(new Date(Number(panicAt / 1_000_000n)));
  const report = newReport(place.id, runningRelease(), manifest.reservedBytes);
  const stages = new Stages(report, (current) => saveReport(current, place.incidents));
  // From here on the report is finished whatever happens: settling tells a resurrection that was broken off.
  writeHandover({ incident: place.id, incidents: place.incidents, units: [], groups: [] });
  writeSettleUnit();
  report.notes.push(...unmounted, ...(opened.note === undefined ? [] : [opened.note]), ...(own?.notes ?? []));
  const initBegan = Number(process.env.OTHERWORLD_BEGAN ?? begun);
  stages.note('boot', 0, { end: initBegan });
  stages.note('start', initBegan, { end: begun });
  stages.note('disks', begun, { end: start });
  stages.note('open', start, { outcome: opened.kernel === undefined ? 'failed' : 'done' });
  if (opened.kernel === undefined) {
    throw new Error(`the dead kernel's memory cannot be read: ${messageWithCauses(opened.error)}`);
  }
  report.notes.push(...releaseNotes(opened.kernel.release, manifest));
  await workOn({ kernel: opened.kernel, panicAt, manifest, place, stages, numbers: own?.range });
  concludePending(report, 'a stage failed before it was restored: see the errors');
  report.state = 'restored';
  saveReport(report, place.incidents);
}

export interface Opened {
  readonly kernel: Kernel | undefined;
  readonly error?: unknown;
  /** Why the profile was not used. */
  readonly note?: string;
}

/** With the profile that was taken when the kernel was healthy; if that does not fit, with what the dead kernel says of itself. */
export function openDeadKernel(profilePath = join(PAYLOAD_DIRECTORY, 'profile')): Opened {
  let note: string | undefined;
  try {
    return { kernel: openKernel(VMCORE, readProfile(profilePath)) };
  } catch (error) {
    note = `the profile was not used: ${messageWithCauses(error)}`;
  }
  try {
    return { kernel: openKernel(VMCORE), note };
  } catch (error) {
    say(`the dead kernel cannot be read: ${messageWithCauses(error)}`);
    console.error(error);
    return { kernel: undefined, error, note };
  }
}

/**
 * Keeps the crash world's own processes clear of the dead world's numbers. Throws a NumberWanted if this program is in the way itself, the first time that it
 * runs.
 */
function ownNumbers(kernel: Kernel): { readonly range?: NumberRange; readonly notes: readonly string[] } {
  try {
    const { numbers, problem } = usedNumbers(kernel);
    const { range, isInTheWay } = keepClear(numbers);
    if (isInTheWay && process.env.OTHERWORLD_AGAIN === undefined) {
      kernel.close();
      throw new NumberWanted('the numbers of this program are wanted, it is started under others');
    }
    return { range, notes: problem === undefined ? [] : [problem] };
  } catch (error) {
    if (error instanceof NumberWanted) throw error;
    return {
      notes: [`the crash world's processes have numbers that may be wanted: ${messageWithCauses(error)}`],
    };
  }
}

/** What the report says of a kernel whose series was not checked: somebody has accepted that, or its memory is not of the kernel that was armed. */
function releaseNotes(release: string, { unchecked }: Manifest): string[] {
  const problem = uncheckedRelease(release);
  if (problem === undefined) return [];
  return [`${problem}${unchecked ? ' (armed with --unchecked)' : ''}`];
}

/** Makes the directory of an incident. */
export function openIncident(panicAt: Date): Place {
  try {
    return { id: createIncident(panicAt), incidents: INCIDENTS_DIRECTORY };
  } catch (error) {
    const incidents = join(RUN_DIRECTORY, 'incidents');
    const id = incidentId(panicAt);
    say(`the incident is kept in ${incidents}: ${messageWithCauses(error)}`);
    mkdirSync(join(incidents, id), { recursive: true, mode: 0o700 });
    return { id, incidents };
  }
}

/** All that the stages share. */
interface Work {
  readonly kernel: Kernel;
  readonly panicAt: bigint;
  readonly manifest: Manifest;
  readonly place: Place;
  readonly stages: Stages;
  /** Numbers for the processes that this program starts. */
  readonly numbers: NumberRange | undefined;
}

async function workOn(work: Work): Promise<void> {
  const { kernel, panicAt, manifest, place, stages, numbers } = work;
  const { report } = stages;
  const toCrashKernel = Date.now() / 1000 - uptimeSeconds() - Number(panicAt) / 1e9;
  // Out of all proportion where the hardware clock keeps local time.
  if (toCrashKernel > -2 && toCrashKernel < 600) {
    report.secondsToCrashKernel = Number(Math.max(0, toCrashKernel).toFixed(1));
  }
  await stages.run('log', () => saveLog(kernel, panicAt, place, report));
  const mounts = await stages.run('mounts', () => {
    const mounted = mountOldTmpfs(kernel);
    report.notes.push(...mounted.problems);
    return mounted.mounts;
  });
  const writeBack = new WriteBack({
    memory: kernel.physical,
    isNamed: (file, name) => isNamed(kernel, file, name),
    incident: place.id,
  });
  await stages.run('write-back', () => writeBackDirtyPages(kernel, writeBack, report));
  const selection = await stages.run('selection', () => select(kernel, manifest, report));
  const { imaged, memoryFiles } = await capture(work, selection, writeBack);
  const limits = readLimits(kernel, imagedPids(imaged));
  report.notes.push(...limits.unreadable);
  const needed = (await stages.run('cpus', () => cpusStage(kernel, report))) ?? [EVERYTHING];
  kernel.close();
  await stages.run('memory', () => memoryStage(manifest.ranges, needed, report));
  if (memoryFiles !== undefined) {
    const { keep } = manifest.config.images;
    await stages.run('make-tmpfs', () => makeMemoryFiles(memoryFiles, spareBytes(imaged), keep, report));
  }
  const { images } = manifest.config;
  const incident = join(place.incidents, place.id);
  const endImages: EndImages = ({ group, directory }, isRestored) => {
    const problems = endGroupImages(dirname(directory), group.id, incident, {
      keep: images.keep,
      isRestored,
    });
    report.notes.push(...problems);
  };
  const ready = (await stages.run('files', () => filesStage(imaged, report, endImages))) ?? [];
  report.notes.push(...protectOldTmpfs(mounts ?? []));
  const watch = openProcedureWatch(report);
  // Not in the cgroup of a service: systemd may end what it finds there when the service's start fails.
  const birthplaceOf = ({ group }: ImagedGroup): string => scopeOf(group.id).cgroup;
  const restored =
    (await stages.run('restore', () =>
      restoreStage(
        ready,
        {
          report,
          save: () => stages.save(),
          endImages,
          beforeRelease: () => writeFileSync(RELEASED, ''),
          numbers,
        },
        birthplaceOf,
      ),
    )) ?? [];
  const running = await stages.run('procedures', () =>
    procedureStage(restored, watch, manifest.config['crash-procedure'], { report, endImages }),
  );
  await stages.run('handover', () => {
    const alive = running ?? restored;
    report.notes.push(...handoverStage(alive, selection?.candidates ?? [], limits.limits, place));
    const pids = new Set(alive.flatMap((group) => group.pids));
    if (memoryFiles !== undefined) noteStalePidFiles(memoryFiles, pids, report);
  });
}

/** What is on the disk before the old memory is taken back. */
interface Captured {
  readonly imaged: readonly ImagedGroup[];
  readonly memoryFiles: SavedMemoryFiles | undefined;
}

/** From the selection to images on the disk. Without a selection, the files on tmpfs are saved all the same. */
async function capture(
  work: Work,
  selection: Selection | undefined,
  writeBack: WriteBack,
): Promise<Captured> {
  const { kernel, panicAt, manifest, place, stages } = work;
  const { report } = stages;
  const groups =
    selection === undefined
      ? []
      : ((await stages.run('capture', () => {
          const barred = barredProcess(report, manifest, place);
          return captureStage(kernel, selection, { criu: criuVersion(), barred, writeBack }, report);
        })) ?? []);
  const occasion = { id: place.id, panicTimeNanoseconds: panicAt };
  const directory = join(manifest.config.images.directory, place.id);
  const imaged = await stages.run('images', () => {
    makeImagesDirectory(directory);
    return imageStage(kernel, groups, directory, occasion, report);
  });
  const captured = (imaged ?? []).map(({ group }) => group);
  const memoryFiles = await stages.run('save-tmpfs', () =>
    saveMemoryFiles(kernel, captured, directory, manifest.config.tmpfs, report),
  );
  return { imaged: imaged ?? [], memoryFiles };
}

/** The process on the panicking CPU, if it has been there too often. */
function barredProcess(
  report: Report,
  manifest: Manifest,
  place: Place,
): { pid: number; reason: string } | undefined {
  const { panic } = report;
  if (panic?.process === undefined) return undefined;
  const { reports, problems } = earlierReports(place.id, place.incidents);
  report.notes.push(...problems);
  const reason = crashLoop(panic, reports, manifest.config);
  return reason === undefined ? undefined : { pid: panic.process.pid, reason };
}

/** Writes to the disks what the dead kernel had promised to; without it files would be older than the processes that use them. */
function writeBackDirtyPages(kernel: Kernel, writeBack: WriteBack, report: Report): void {
  const problems: string[] = [];
  const note = (sentence: string) => report.notes.push(sentence);
  try {
    writeBack.write(unwrittenFiles(kernel, problems), note);
  } finally {
    problems.forEach(note);
  }
}

/** Saves the dead kernel's log, and what it says of the panic. */
export function saveLog(kernel: Kernel, panicAt: bigint, place: Place, report: Report): void {
  const log = readOldLog(kernel);
  // Before the file: a full disk must not hide who panicked from the protection against crash loops.
  report.panic = describePanic(kernel, log, panicAt);
  writeFileSync(join(place.incidents, place.id, 'dmesg.txt'), log.text, { mode: 0o600 });
  if (log.damage !== undefined) report.notes.push(`the dead kernel's log is incomplete: ${log.damage}`);
}

interface Selection {
  readonly selected: readonly Selected[];
  readonly candidates: readonly Candidate[];
}

function select(kernel: Kernel, manifest: Manifest, report: Report): Selection {
  const saved = loadRules();
  report.errors.push(...saved.problems);
  const rules = [...manifest.rules, ...saved.rules];
  const { candidates, unreadable } = listCandidates(kernel);
  report.notes.push(...unreadable);
  const { selected, unmatched } = selectProcesses(rules, candidates);
  report.processes.push(...selected.map(selectedReport));
  report.unmatchedRules.push(...unmatched.map((rule) => explainUnmatched(rule, candidates)));
  return { selected, candidates };
}
