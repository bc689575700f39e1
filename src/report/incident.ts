import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { INCIDENTS_DIRECTORY } from '../config/paths.ts';
import { wellFormed } from '../system/byte-text.ts';
import { damageOf } from '../system/damage.ts';
import { replaceFile, setAside } from '../system/state-file.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import { type IncidentReport, reportSchema } from './schema.ts';

/** An incident cannot be shown; the message says which and why. */
export class IncidentError extends Error {
  override readonly name = 'IncidentError';
}

const ID = /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(-\d+)?$/;

/** The id of an incident from the time of its panic: sorts by time, is a file name. */
export function incidentId(panic: Date): string {
  return `${panic.toISOString().slice(0, 19).replaceAll(':', '-')}Z`;
}

/** When an incident's kernel panicked, by its id: milliseconds since 1970, to a second. */
export function incidentTime(id: string): number {
  return Date.parse(`${id.slice(0, 13)}:${id.slice(14, 16)}:${id.slice(17, 19)}Z`);
}

/**
 * Makes the directory of a new incident (mode 0700); a second incident of the same second gets a number
 * behind its id.
 * @returns the id
 */
export function createIncident(panic: Date, incidents: string = INCIDENTS_DIRECTORY): string {
  mkdirSync(incidents, { recursive: true, mode: 0o700 });
  for (let number = 1; ; number++) {
    const id = number === 1 ? incidentId(panic) : `${incidentId(panic)}-${number}`;
    try {
      mkdirSync(join(incidents, id), { mode: 0o700 });
      return id;
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
  }
}

/** The report of an incident of which nothing is known yet. */
export function newReport(id: string, crashKernelRelease: string, reservedBytes: number): IncidentReport {
  return {
    version: 1,
    id,
    state: 'running',
    crashKernelRelease,
    stages: [],
    processes: [],
    unmatchedRules: [],
    memory: { reservedBytes, peakUsedBytes: 0, reclaimedBytes: 0 },
    errors: [],
    notes: [],
  };
}

/**
 * The report of an incident, to be gone on with: if it cannot be read, it is kept under another name, and a
 * new one says so.
 * @throws what keeping it under another name throws
 */
export function resumeReport(
  id: string,
  crashKernelRelease: string,
  incidents: string = INCIDENTS_DIRECTORY,
): IncidentReport {
  try {
    return loadReport(id, incidents);
  } catch (error) {
    const report = newReport(id, crashKernelRelease, 0);
    const path = join(incidents, id, 'report.json');
    const kept = existsSync(path) ? `; it is kept: ${setAside(path)}` : '';
    const why = messageOf(error);
    report.errors.push(`the report of what was done before the boot is lost: ${why}${kept}`);
    return report;
  }
}

/** Writes a report so that it outlives a crash in the next moment. */
export function saveReport(report: IncidentReport, incidents: string = INCIDENTS_DIRECTORY): void {
  replaceFile(join(incidents, report.id, 'report.json'), `${JSON.stringify(report, wellFormed, 2)}\n`);
}

/** Ids of all incidents that have a directory here, oldest first. */
export function listIncidents(incidents: string = INCIDENTS_DIRECTORY): string[] {
  const found = statSync(incidents, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(incidents) : [];
  return found.filter((name) => ID.test(name)).sort();
}

/**
 * Reads the report of an incident.
 * @throws IncidentError if there is no such incident, or its report is missing or damaged
 */
export function loadReport(id: string, incidents: string = INCIDENTS_DIRECTORY): IncidentReport {
  const path = join(incidents, id, 'report.json');
  let text: string;
  try {
    if (!ID.test(id)) throw new IncidentError(`${id} is not the id of an incident`);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    const known = listIncidents(incidents);
    const hint = known.length === 0 ? 'there was none' : `there are ${known.slice(-5).join(', ')}`;
    throw new IncidentError(
      known.includes(id) ? `incident ${id} has no report yet` : `no incident ${id}; ${hint}`,
    );
  }
  try {
    return reportSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new IncidentError(`${path} is damaged: ${damageOf(error)}`);
  }
}

/** The id of the latest incident, or undefined. */
export function latestIncident(incidents: string = INCIDENTS_DIRECTORY): string | undefined {
  return listIncidents(incidents).at(-1);
}
