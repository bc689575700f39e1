import { lstatSync, unlinkSync } from 'node:fs';
import { moveBetween, type NameIn, pathIn } from '../../../system/file-calls.ts';
import { inodeOf } from '../../../system/file-handle.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import { messageOf } from '../../../system/thrown.ts';
import { type Attribute, readAttributes } from '../../../system/xattr.ts';
import type { PlannedName } from '../../images/plan/restore-plan.ts';
import type { StagingDirectory } from './staging-directory.ts';

/** Whether what is there is the file of the dead system's socket. Of a memory file system all has gone. */
function isOld(place: NameIn, was: PlannedName['identity']): boolean {
  const isSocket = typeOf(lstatSync(pathIn(place)).mode) === fileType.socket;
  const now = inodeOf(...place);
  return was.onDisk && isSocket && now?.inode === was.inode && now.generation === was.generation;
}

/**
 * Removes the file of the dead system's socket from the place of the new one. Throws an Error, and removes
 * nothing, if something is there that is not provably that: it is somebody's who runs now.
 * @returns the attributes of the old file, an ACL among them, for the new one
 */
export function takeOldAway(
  place: NameIn,
  { path, identity }: Pick<PlannedName, 'path' | 'identity'>,
  staging: StagingDirectory,
): Attribute[] {
  if (lstatSync(pathIn(place), { throwIfNoEntry: false }) === undefined) return [];
  const wrong = new Error(`something else is at ${path}`);
  if (!isOld(place, identity)) throw wrong;
  // Whoever can write to the directory may have put another one there: what was taken is looked at.
  const taken = staging.take(place);
  if (isOld(taken, identity)) {
    const attributes = readAttributes(pathIn(taken));
    unlinkSync(pathIn(taken));
    return attributes;
  }
  putBack(taken, place, path, staging);
  throw wrong;
}

/** Throws an Error that names where it is, if something else is in its place by now. */
function putBack(taken: NameIn, place: NameIn, path: string, staging: StagingDirectory): void {
  try {
    moveBetween(taken, place);
  } catch (error) {
    const kept = `${staging.whereabouts()}/${taken[1]}`;
    throw new Error(
      `something else was at ${path}, and is ${kept} now: it cannot be put back (${messageOf(error)})`,
      { cause: error },
    );
  }
}
