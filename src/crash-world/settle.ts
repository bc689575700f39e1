import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadManifest } from '../config/manifest.ts';
import { RUN_DIRECTORY, RUNTIME_DIRECTORY } from '../config/paths.ts';
import { resumeReport, saveReport } from '../report/incident.ts';
import { configuredLimits, prune } from '../report/prune.ts';
import type { Report } from '../report/schema.ts';
import { type Adoption, SLICE, type UnitAdoption } from './adoption.ts';
import { readHandover } from './handover.ts';
import { concludePending } from './process-reports.ts';
import { renewPidRules } from './renew-rules.ts';
import { messageOf, Stages } from './stages.ts';
import { removeDropIn, TMPFILES } from './units.ts';

/**
 * The crash world's work when the system has booted: services have taken up their processes, the others get scopes, units become what they
 * were, rules for pids get the new start times, and the report is finished.
 */
export async function settle(): Promise<void> {
  const handover = readHandover();
  const save = (current: Report): void => saveReport(current, handover.incidents);
  const report = resumeReport(handover.incident, runningRelease(), handover.incidents);
  if (report.state === 'running') concludeBrokenOff(report);
  const stages = new Stages(report, save);
  await stages.run('services', () => adoptAll(handover.adoptions, report));
  await stages.run('rules', () => renewPidRules(report));
  await stages.run('sweep', () => sweep(handover.incidents, report));
  await stages.run('settled', () => {
    releaseRuntime();
    copyFileSync(
      join(RUN_DIRECTORY, 'init.log'),
      join(handover.incidents, handover.incident, 'crash-world.log'),
    );
  });
  report.state = 'settled';
  save(report);
}

/** Ends images that no stage has ended, by the report as it was saved after the last stage, and what is older or more than the configuration keeps. */
function sweep(incidents: string, report: Report): void {
  const manifest = loadManifest();
  const { directory } = manifest.config.images;
  const { problems } = prune(configuredLimits(manifest.config), { images: directory, incidents });
  report.notes.push(...problems);
}

/** The program before the boot was ended: by its time limit, for want of memory, or by an error of its own. */
function concludeBrokenOff(report: Report): void {
  const last = report.stages.at(-1)?.name ?? 'none';
  report.errors.push(`the resurrection was broken off; the last stage that ended was: ${last}`);
  concludePending(report, 'the resurrection was broken off before it was restored');
}

async function adoptAll(adoptions: readonly Adoption[], report: Report): Promise<void> {
  const afresh: string[] = [];
  for (const adoption of adoptions) {
    try {
      if (adoption.kind === 'unit') await adoptUnit(adoption);
      else startScope(adoption);
      noteAdopted(report, adoption);
    } catch (error) {
      report.errors.push(`${adoption.unit}: ${messageOf(error)}`);
      if (adoption.kind === 'unit' && !existsSync(`/proc/${adoption.mainPid}`)) afresh.push(adoption.unit);
    }
  }
  const units = adoptions.filter(({ kind }) => kind === 'unit');
  for (const { unit } of units) removeDropIn(unit);
  removeDropIn(TMPFILES);
  systemctl('daemon-reload');
  // The main process ended before its service could take it up: as at any other end of it.
  for (const unit of afresh) systemctl('restart', '--no-block', unit);
}

function noteAdopted(report: Report, { unit, processes }: Adoption): void {
  const pids = new Set(processes.map(({ pid }) => pid));
  for (const process of report.processes) if (pids.has(process.pid)) process.adopted = unit;
}

function systemctl(...args: string[]): string {
  return execFileSync('systemctl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

/** Enabled services have taken up their processes during the boot; one that was started by hand is started now. */
async function adoptUnit({ unit, mainPid }: UnitAdoption): Promise<void> {
  for (
    let tries = 0;
    systemctl('show', unit, '--property=ActiveState', '--value') === 'activating' && tries < 50;
    tries++
  ) {
    await sleep(200);
  }
  systemctl('start', unit);
  const found = systemctl('show', unit, '--property=MainPID', '--value');
  if (found !== String(mainPid)) throw new Error(`has main process ${found} instead of ${mainPid}`);
}

/** Moves the processes named by its arguments into its own cgroup, and ends. */
const JOIN =
  'own=$(sed -n s/^0:://p /proc/self/cgroup); for pid; do echo $pid >/sys/fs/cgroup$own/cgroup.procs; done';

/** A scope lives as long as there are processes in it, here those that are moved in by the one that it is made with. */
function startScope({ unit, processes }: Adoption): void {
  const pids = processes.map(({ pid }) => String(pid)).filter((pid) => existsSync(`/proc/${pid}`));
  const description = '--description=Processes brought back by Otherworld';
  const options = ['--scope', '--quiet', '--collect', `--unit=${unit}`, `--slice=${SLICE}`, description];
  execFileSync('systemd-run', [...options, 'sh', '-c', JOIN, 'sh', ...pids], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}

/** The runtime's memory is given back when this program, which runs from it, has ended. */
function releaseRuntime(): void {
  // The loop device was made by mount, and goes with the file system.
  spawnSync('umount', ['--lazy', RUNTIME_DIRECTORY]);
}
