import { copyFileSync, existsSync, writeFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '../config/manifest.ts';
import { RUN_DIRECTORY } from '../config/paths.ts';
import { newReport, resumeReport, saveReport } from '../report/incident.ts';
import type { IncidentReport } from '../report/schema.ts';
import { messageWithCauses } from '../system/thrown.ts';
import { type IncidentPlace, openIncident } from './incident/incident-place.ts';
import { concludePending } from './incident/process-reports.ts';
import { mountFileSystems } from './mounts/mounts.ts';
import { openDeadKernel, panicTimeNanoseconds } from './old-kernel.ts';
import { saveLog } from './stages/log-stage.ts';
import { readHandover } from './systemd/handover.ts';

/** Tells give-up.sh that there is a report. */
const WRITTEN = join(RUN_DIRECTORY, 'given-up');

/**
 * Writes the incident of a crash world that has brought nothing back: why, the dead kernel's log, and what
 * this world itself has written. Goes on with the incident that the resurrection has begun, if it has. First
 * the report, then what may fail.
 */
export function giveUp(reason: string): void {
  const begun = begunIncident();
  const place = begun ?? newPlace();
  const save = (report: IncidentReport): void => saveReport(report, place.incidents);
  const report =
    begun === undefined
      ? newReport(place.id, runningRelease(), loadManifest().reservedBytes)
      : resumeReport(begun.id, runningRelease(), begun.incidents);
  report.errors.push(reason);
  concludePending(report, `nothing was brought back: ${reason}`);
  report.state = 'abandoned';
  save(report);
  writeFileSync(WRITTEN, '');
  const directory = join(place.incidents, place.id);
  if (!existsSync(join(directory, 'dmesg.txt'))) saveDeadLog(place, report);
  copyFileSync(join(RUN_DIRECTORY, 'init.log'), join(directory, 'crash-world.log'));
  save(report);
}

function begunIncident(): IncidentPlace | undefined {
  try {
    const { incident, incidents } = readHandover();
    return { id: incident, incidents };
  } catch {
    // The resurrection did not come so far.
    return undefined;
  }
}

/** The panic's time is not known before the dead kernel is read, which may fail. */
function newPlace(): IncidentPlace {
  mountFileSystems();
  return openIncident(new Date());
}

function saveDeadLog(place: IncidentPlace, report: IncidentReport): void {
  try {
    const { kernel, error } = openDeadKernel();
    if (kernel === undefined) throw error;
    saveLog(kernel, panicTimeNanoseconds(kernel), place, report);
  } catch (error) {
    report.errors.push(`the dead kernel's log cannot be read: ${messageWithCauses(error)}`);
  }
}
