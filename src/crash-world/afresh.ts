import { setTimeout as sleep } from 'node:timers/promises';
import type { IncidentReport } from '../report/schema.ts';
import { readStateFile } from '../system/state-file.ts';
import { sandboxFiles } from './sandbox-units.ts';
import { show, systemctl } from './systemctl.ts';
import { writeAfreshDropIn } from './units.ts';

const BETWEEN_LOOKS_MS = 100;
/** How often it is looked whether a helper that has been told to end has ended. */
const MOST_TRIES = 100;

/**
 * Whether the boot starts a unit: its transaction is there, whole, before anything of it runs. To be asked
 * before anybody else starts the unit. Not so one that was started by hand, by a timer or for a connection.
 * @param now `ActiveState` and `Job` of the unit
 */
export function isStartedByBoot(now: ReadonlyMap<string, string>): boolean {
  const hasJob = !['', '0'].includes(now.get('Job') ?? '');
  return hasJob || now.get('ActiveState') !== 'inactive';
}

/** The systemctl command for a unit with a placeholder, or with nothing, that is to be as after a boot. */
export function afreshCommand(startsAtBoot: boolean): 'restart' | 'stop' {
  return startsAtBoot ? 'restart' : 'stop';
}

/**
 * Has a unit be as a plain boot would have left it: started as itself, or, if no boot starts it, not at all.
 * Its helper has been told to end.
 */
export async function startAfresh(
  unit: string,
  startsAtBoot: boolean,
  report: IncidentReport,
): Promise<void> {
  // A restart of a unit that is being started would break that off, and all that waits for it with it.
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    if (show(unit, 'ActiveState').get('ActiveState') !== 'activating') break;
    await sleep(BETWEEN_LOOKS_MS);
  }
  writeAfreshDropIn(unit);
  systemctl('daemon-reload');
  systemctl(afreshCommand(startsAtBoot), '--no-block', '--', unit);
  // What it does when it stops is for its own program: the drop-in may go only when that is decided.
  const placeholder = readStateFile(sandboxFiles(unit).waits)?.trim();
  for (let tries = 0; placeholder !== undefined && tries < MOST_TRIES; tries++) {
    if (show(unit, 'MainPID').get('MainPID') !== placeholder) break;
    await sleep(BETWEEN_LOOKS_MS);
  }
  if (!startsAtBoot) report.notes.push(`${unit} is not started afresh: no boot starts it`);
}
