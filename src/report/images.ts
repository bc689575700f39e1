import { copyFileSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import { RESTORE_LOG } from '../criu/restore/names.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import { pathProblem } from '../system/trusted-path.ts';
import type { IncidentReport } from './schema.ts';

type Keep = Config['images']['keep'];

const GROUP = /^group-(\d+)$/;
/** What to do about a directory of images that others can change. */
export const IMAGES_REMEDY =
  'set images.directory to one that only root can write to, with all that is above it';

/**
 * Makes the directory in which images are, or those of one incident, with mode 0700.
 * @throws Error if others than root can write to it or to a directory above it: they could put something else
 * in the place of what is restored
 */
export function makeImagesDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const problem = pathProblem(directory);
  if (problem !== undefined) throw new Error(`${problem}: ${IMAGES_REMEDY}`);
}

/** Where a group's images are below those of its incident. */
export function groupDirectory(images: string, group: number): string {
  return join(images, `group-${group}`);
}

/** Where CRIU's log of the restore of a group is kept, in the directory of its incident. */
export function keptLog(incident: string, group: number): string {
  return join(incident, `restore-${group}.log`);
}

/** Whether images of a group stay, once it is known what became of it. */
function imagesStay(keep: Keep, isRestored: boolean): boolean {
  return keep === 'always' || (keep === 'failed' && !isRestored);
}

/**
 * Ends a group's images: CRIU's log goes to the incident's directory, and the images go unless the
 * configuration keeps them.
 * @param images the directory of the incident's images
 * @param incident the incident's directory
 * @returns what did not work, a sentence each
 */
export function endGroupImages(
  images: string,
  group: number,
  incident: string,
  { keep, isRestored }: { readonly keep: Keep; readonly isRestored: boolean },
): string[] {
  const directory = groupDirectory(images, group);
  const problems = attempt(`${join(directory, RESTORE_LOG)} cannot be kept`, () =>
    takeLog(join(directory, RESTORE_LOG), keptLog(incident, group)),
  );
  if (imagesStay(keep, isRestored)) return problems;
  return [...problems, ...attempt(`${directory} cannot be removed`, () => removeTree(directory))];
}

/**
 * Ends all images of an incident by what its report says of the groups, whichever stage they were left in: a
 * resurrection can be broken off at any moment. With `failed`, what belongs to a group that is not known to
 * run, and what could not be made again of the files on tmpfs, stays.
 * @param images `images.directory` of the configuration
 * @returns what did not work, a sentence each
 */
export function endImages(
  report: Pick<IncidentReport, 'id' | 'processes'>,
  images: string,
  incidents: string,
  keep: Keep,
): string[] {
  const directory = join(images, report.id);
  if (lstatSync(directory, { throwIfNoEntry: false }) === undefined) return [];
  const distrusted = pathProblem(directory);
  if (distrusted !== undefined) return [`${directory} is left alone: ${distrusted}`];
  const groups = readdirSync(directory).flatMap((name) => GROUP.exec(name)?.[1] ?? []);
  const problems = groups.map(Number).flatMap((group) => {
    const own = report.processes.filter((process) => process.group === group);
    const isRestored = own.length > 0 && own.every(({ outcome }) => outcome === 'restored');
    return endGroupImages(directory, group, join(incidents, report.id), { keep, isRestored });
  });
  if (keep === 'never') {
    problems.push(...attempt(`${directory} cannot be removed`, () => removeTree(directory)));
  } else if (readdirSync(directory).length === 0) {
    problems.push(...attempt(`${directory} cannot be removed`, () => rmdirSync(directory)));
  }
  return problems;
}

/** Removes a directory and what is in it. Links in it are removed, not followed. */
export function removeTree(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

/** The images can be on another file system than the incident. */
function takeLog(from: string, to: string): void {
  if (lstatSync(from, { throwIfNoEntry: false })?.isFile() !== true) return;
  try {
    renameSync(from, to);
  } catch (error) {
    if (codeOf(error) !== 'EXDEV') throw error;
    copyFileSync(from, to);
    rmSync(from);
  }
}

function attempt(what: string, step: () => void): string[] {
  try {
    step();
    return [];
  } catch (error) {
    return [`${what}: ${messageOf(error)}`];
  }
}
