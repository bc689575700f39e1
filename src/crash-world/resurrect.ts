import { release as runningRelease } from 'node:os';
import { isNamed } from '../capture/files/content/write-back.ts';
import { loadManifest, type Manifest } from '../config/manifest.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { type NumberRange, usedNumbers } from '../linux/pid.ts';
import { newReport, saveReport } from '../report/incident.ts';
import type { IncidentReport } from '../report/schema.ts';
import { messageWithCauses } from '../system/thrown.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { openIncident } from './incident/incident-place.ts';
import { concludePending } from './incident/process-reports.ts';
import { mountFileSystems } from './mounts/mounts.ts';
import { openDeadKernel, panicTimeNanoseconds } from './old-kernel.ts';
import { keepClear, NumberWanted } from './processes/pids.ts';
import { RESURRECTION } from './stages/resurrection.ts';
import { StageRunner, uptimeSeconds } from './stages/stage-runner.ts';
import { readHandover, writeHandover } from './systemd/handover.ts';
import { writeSettleUnit } from './systemd/units.ts';
import { WriteBack } from './write-back/index.ts';

/**
 * The crash world's work before the system's init starts: the log and the incident, capture, images, the old
 * memory and CPUs, restore, and what systemd needs to take up the processes. What goes wrong is in the
 * report.
 * @throws if the dead kernel cannot be read at all: then there is nothing to stay in the crash world for; a
 * NumberWanted, before it has done anything, if it has to be started once more
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
  const runner = new StageRunner(report, (current) => saveReport(current, place.incidents));
  // From here on the report is finished whatever happens: settling tells a resurrection that was broken off.
  writeHandover({ incident: place.id, incidents: place.incidents, units: [], sandboxes: [], groups: [] });
  writeSettleUnit();
  report.notes.push(...unmounted, ...(opened.note === undefined ? [] : [opened.note]), ...(own?.notes ?? []));
  const initBegan = Number(process.env.OTHERWORLD_BEGAN ?? begun);
  runner.note('boot', 0, { end: initBegan });
  runner.note('start', initBegan, { end: begun });
  runner.note('disks', begun, { end: start });
  runner.note('open', start, { outcome: opened.kernel === undefined ? 'failed' : 'done' });
  if (opened.kernel === undefined) {
    throw new Error(`the dead kernel's memory cannot be read: ${messageWithCauses(opened.error)}`);
  }
  const { kernel } = opened;
  report.notes.push(...releaseNotes(kernel.release, manifest));
  noteTimeToCrashKernel(report, panicAt);
  const writeBack = new WriteBack({
    memory: kernel.physical,
    isNamed: (file, name) => isNamed(kernel, file, name),
    incident: place.id,
  });
  const save = () => runner.save();
  const work = { report, save, manifest, place, panicAt, numbers: own?.range };
  await RESURRECTION.run({ kernel, writeBack }, work, runner);
  const later = readHandover().sandboxes.flatMap(({ groups }) => groups.map(({ group }) => group));
  concludePending(report, 'a stage failed before it was restored: see the errors', new Set(later));
  report.state = 'restored';
  saveReport(report, place.incidents);
}

/**
 * Keeps the crash world's own processes clear of the dead world's numbers. Throws a NumberWanted if this
 * program is in the way itself, the first time that it runs.
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

/**
 * What the report says of a kernel whose series was not checked: somebody has accepted that, or its memory is
 * not of the kernel that was armed.
 */
function releaseNotes(release: string, { unchecked }: Manifest): string[] {
  const problem = uncheckedRelease(release);
  if (problem === undefined) return [];
  return [`${problem}${unchecked ? ' (armed with --unchecked)' : ''}`];
}

function noteTimeToCrashKernel(report: IncidentReport, panicAt: bigint): void {
  const seconds = Date.now() / 1000 - uptimeSeconds() - Number(panicAt) / 1e9;
  // Out of all proportion where the hardware clock keeps local time.
  if (seconds > -2 && seconds < 600) report.secondsToCrashKernel = Number(Math.max(0, seconds).toFixed(1));
}
