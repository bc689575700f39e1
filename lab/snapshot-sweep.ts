import { readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ifThere } from '../src/system/proc.ts';
import { processExists } from './cache.ts';

/** How the directories begin that hold armed guests, in that of their machine. */
export const ARMED = 'armed-';

/**
 * Armed guests that are kept of each machine, whatever their age; with the one that is being saved it is one
 * more. Installations change many times a day where they are developed, and each takes a gigabyte.
 */
const KEPT_ARMED = 2;

/** What has just been found may be about to be opened. */
const IN_USE_MINUTES = 10;

/** No snapshot takes so long to save: a process with the saver's pid is another one. */
const SAVING_MINUTES = 60;

/**
 * Removes what is in the way of another snapshot: armed guests beyond the newest of each machine, and what
 * was left where a process ended while it saved one.
 * @param root the directory of all snapshots
 */
export function sweepSnapshots(root: string): void {
  for (const machine of namesIn(root)) {
    const directory = join(root, machine);
    if (isLeftOver(directory)) remove(directory);
    else sweepMachine(directory);
  }
}

function sweepMachine(directory: string): void {
  const armed = namesIn(directory)
    .filter((name) => name.startsWith(ARMED))
    .map((name) => join(directory, name));
  const isBeingSaved = (path: string): boolean => saver(path) !== undefined;
  for (const path of armed.filter(isBeingSaved)) if (isLeftOver(path)) remove(path);
  const newestFirst = armed
    .filter((path) => !isBeingSaved(path))
    .map((path) => ({ path, age: minutesSinceUse(path) }))
    .sort((one, other) => one.age - other.age);
  for (const { path, age } of newestFirst.slice(KEPT_ARMED)) if (age > IN_USE_MINUTES) remove(path);
}

/** Under its pid's name, a snapshot that is not whole is nobody's. */
function remove(path: string): void {
  const doomed = `${path}.${process.pid}`;
  ifThere(() => renameSync(path, doomed));
  rmSync(doomed, { recursive: true, force: true });
}

/** The process that saves it, or removes it, if it is not whole. */
function saver(path: string): number | undefined {
  const pid = /\.(\d+)$/.exec(path)?.[1];
  return pid === undefined ? undefined : Number(pid);
}

function isLeftOver(path: string): boolean {
  const pid = saver(path);
  return pid !== undefined && (!processExists(pid) || minutesSinceUse(path) > SAVING_MINUTES);
}

/** 0 for what somebody else has just removed. */
function minutesSinceUse(path: string): number {
  const used = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
  return (Date.now() - used) / 60_000;
}

function namesIn(directory: string): string[] {
  return ifThere(() => readdirSync(directory)) ?? [];
}
