import { spawnSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '../config/manifest.ts';
import { RUN_DIRECTORY, RUNTIME_DIRECTORY } from '../config/paths.ts';
import { resumeReport, saveReport } from '../report/incident.ts';
import { configuredLimits, prune } from '../report/prune.ts';
import type { IncidentReport } from '../report/schema.ts';
import { endNonlocalBind } from '../system/nonlocal-bind.ts';
import { messageWithCauses } from '../system/thrown.ts';
import { concludePending } from './incident/process-reports.ts';
import { renewPidRules } from './processes/renew-rules.ts';
import { ApartConnections, readApartEnds } from './sandbox/apart-connections.ts';
import { answerAll } from './sandbox/unanswered.ts';
import { StageRunner } from './stages/stage-runner.ts';
import { adoptAll } from './systemd/adopt.ts';
import { isStartedByBoot, startAfresh } from './systemd/afresh.ts';
import { type Handover, readHandover } from './systemd/handover.ts';
import { show } from './systemd/systemctl.ts';
import { removeDropIn } from './systemd/units.ts';
import { groupsInScopes, noteReleased, noteWhatRuns } from './systemd/what-runs.ts';

/**
 * The crash world's work when the system has booted: services have taken up their processes, the others get
 * scopes, units become what they were, rules for pids get the new start times, and the report is finished.
 */
export async function settle(): Promise<void> {
  const { units, groups: named, sandboxes, ...handover } = readHandover();
  const save = (current: IncidentReport): void => saveReport(current, handover.incidents);
  const report = resumeReport(handover.incident, runningRelease(), handover.incidents);
  if (report.state === 'running') concludeBrokenOff(report);
  else {
    noteReleased(report, named);
    concludePending(report, 'the restore into its sandbox was broken off');
  }
  report.errors.push(...endNonlocalBind());
  await answerAll().catch((error: unknown) => report.errors.push(messageWithCauses(error)));
  // Nobody else comes back now.
  await new ApartConnections(readApartEnds(report), report).concluded();
  const runner = new StageRunner(report, save);
  const isNamed = new Set(named.map(({ group }) => group));
  const groups = [...named, ...groupsInScopes(report).filter(({ group }) => !isNamed.has(group))];
  const undecided = sandboxes.filter((one) => isUndecided(one, units, report));
  await runner.run('services', async () => {
    for (const { unit, startsAtBoot } of undecided) {
      // If nobody asked then, nobody else has started it since.
      const isStarted = startsAtBoot ?? isStartedByBoot(show(unit, 'ActiveState', 'Job'));
      await startAfresh(unit, isStarted, report);
    }
    // Those that are started afresh are nobody's to take up; the others are put back with the services.
    const isAfresh = (unit: string): boolean => undecided.some((one) => one.unit === unit);
    const others = units.filter(({ unit }) => !isAfresh(unit));
    for (const { unit } of sandboxes) if (others.every((other) => other.unit !== unit)) removeDropIn(unit);
    await adoptAll({ units: others, groups, sandboxes }, report);
  });
  await runner.run('look', () => noteWhatRuns(groups, report));
  await runner.run('rules', () => renewPidRules(report));
  await runner.run('sweep', () => sweep(handover.incidents, report));
  await runner.run('settled', () => {
    releaseRuntime();
    copyFileSync(
      join(RUN_DIRECTORY, 'init.log'),
      join(handover.incidents, handover.incident, 'crash-world.log'),
    );
  });
  report.state = 'settled';
  save(report);
}

/** Whether the program that restores into sandboxes was ended before a service had its processes. */
function isUndecided(
  { unit, groups }: Handover['sandboxes'][number],
  units: Handover['units'],
  report: IncidentReport,
): boolean {
  const own = new Set(groups.map(({ group }) => group));
  const isRestored = report.processes.some(
    ({ group, outcome }) => group !== undefined && own.has(group) && outcome === 'restored',
  );
  return !isRestored && units.some((other) => other.unit === unit);
}

/**
 * Ends images that no stage has ended, by the report as it was saved after the last stage, and what is older
 * or more than the configuration keeps.
 */
function sweep(incidents: string, report: IncidentReport): void {
  const manifest = loadManifest();
  const { directory } = manifest.config.images;
  const { problems } = prune(configuredLimits(manifest.config), { images: directory, incidents });
  report.notes.push(...problems);
}

/**
 * The program before the boot was ended: by its time limit, for want of memory, or by an error of its own.
 */
function concludeBrokenOff(report: IncidentReport): void {
  const last = report.stages.at(-1)?.name ?? 'none';
  report.errors.push(`the resurrection was broken off; the last stage that ended was: ${last}`);
  noteReleased(report);
  concludePending(report, 'the resurrection was broken off before it was restored');
}

/** The runtime's memory is given back when this program, which runs from it, has ended. */
function releaseRuntime(): void {
  // The loop device was made by mount, and goes with the file system.
  spawnSync('umount', ['--lazy', RUNTIME_DIRECTORY]);
}
