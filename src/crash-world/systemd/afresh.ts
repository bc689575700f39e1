import { setTimeout as sleep } from 'node:timers/promises';
import type { IncidentReport } from '../../report/schema.ts';
import { readStateFile, replaceFile } from '../../system/state-file.ts';
import { sandboxFiles } from '../sandbox/sandbox-units.ts';
import { show, systemctl } from './systemctl.ts';
import { writeAfreshDropIn } from './units.ts';

const BETWEEN_LOOKS_MS = 100;
/** How often it is looked whether a helper that has been told to end has ended. */
const MOST_TRIES = 100;

/**
 * Whether the boot has begun to start a unit. To be asked before anybody else starts the unit. That it has
 * not does not say that nothing will: see `couldBeStarted`.
 * @param now `ActiveState` and `Job` of the unit
 */
export function isStartedByBoot(now: ReadonlyMap<string, string>): boolean {
  const hasJob = !['', '0'].includes(now.get('Job') ?? '');
  return hasJob || now.get('ActiveState') !== 'inactive';
}

/** What `couldBeStarted` is told by. */
const STARTERS = ['WantedBy', 'RequiredBy', 'TriggeredBy'] as const;
/** States of a unit file that have it started by itself (systemctl(1), is-enabled). */
const ENABLED = ['enabled', 'enabled-runtime', 'alias', 'generated'];

/**
 * Whether something may start a unit that the boot has not begun to start by an early look: a target that is
 * reached later, a timer, a socket.
 * @param now `WantedBy`, `RequiredBy`, `TriggeredBy` and `UnitFileState` of the unit
 */
export function couldBeStarted(now: ReadonlyMap<string, string>): boolean {
  const isNamed = STARTERS.some((name) => (now.get(name) ?? '') !== '');
  return isNamed || ENABLED.includes(now.get('UnitFileState') ?? '');
}

/**
 * The arguments of systemctl for a unit with a placeholder, or with nothing, that is to be as after a boot.
 * Only it: what requires it (`Requires=`, `BindsTo=`, `PartOf=`) may run as restored, and would be stopped or
 * restarted with it.
 */
export function afreshCommand(unit: string, isStarted: boolean): string[] {
  const alone = ['--no-block', '--job-mode=ignore-requirements'];
  return [isStarted ? 'restart' : 'stop', ...alone, '--', unit];
}

/**
 * Has a unit be as a plain boot would have left it: started as itself, or, if nothing starts it, not at all.
 * Its helper has been told to end. A unit that was told before is not told again.
 */
export async function startAfresh(
  unit: string,
  startsAtBoot: boolean,
  report: IncidentReport,
): Promise<void> {
  const { told, waits } = sandboxFiles(unit);
  if (readStateFile(told) === undefined) {
    await tell(unit, startsAtBoot, report);
    replaceFile(told, '');
  }
  // What it does when it stops is for its own program: the drop-in may go only when that is decided.
  const placeholder = readStateFile(waits)?.trim();
  for (let tries = 0; placeholder !== undefined && tries < MOST_TRIES; tries++) {
    if (show(unit, 'MainPID').get('MainPID') !== placeholder) break;
    await sleep(BETWEEN_LOOKS_MS);
  }
}

async function tell(unit: string, startsAtBoot: boolean, report: IncidentReport): Promise<void> {
  // A restart of a unit that is being started would break that off, and all that waits for it with it.
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    if (show(unit, 'ActiveState').get('ActiveState') !== 'activating') break;
    await sleep(BETWEEN_LOOKS_MS);
  }
  writeAfreshDropIn(unit);
  systemctl('daemon-reload');
  const now = show(unit, ...STARTERS, 'UnitFileState');
  const isStarted = startsAtBoot || couldBeStarted(now);
  systemctl(...afreshCommand(unit, isStarted));
  if (!isStarted) report.notes.push(notStarted(unit, now));
}

/** What was seen of a unit that is not started afresh. */
export function notStarted(unit: string, now: ReadonlyMap<string, string>): string {
  const state = now.get('UnitFileState') ?? '';
  return (
    `${unit} is not started afresh: the boot had not begun to start it, ` +
    `no loaded unit wants, requires or triggers it, and its unit file is ${state === '' ? 'in no state' : state}`
  );
}
