import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { INCIDENTS_DIRECTORY, RUN_DIRECTORY } from '../../config/paths.ts';
import { createIncident, incidentId } from '../../report/incident.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { say } from '../stages/stage-runner.ts';

/** Where the incident is kept; in memory if the disk cannot be written to. */
export interface IncidentPlace {
  readonly id: string;
  /** The directory that has one for each incident. */
  readonly incidents: string;
}

/** Makes the directory of an incident. */
export function openIncident(panicAt: Date): IncidentPlace {
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
