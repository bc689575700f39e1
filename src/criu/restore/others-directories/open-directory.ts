import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { O_PATH, openBelow } from '../../../system/file-calls.ts';
import { inodeGeneration } from '../../../system/inode-generation.ts';
import type { PlannedName } from '../../images/plan/restore-plan.ts';

/**
 * Opens the directory that something is made in, which others than root can write to. No link is on the way,
 * whoever puts one there. Throws an Error if it is not the one that it was.
 */
export function openOthersDirectory({
  path,
  directory: was,
}: Pick<PlannedName, 'path' | 'directory'>): number {
  const root = openSync('/', O_PATH | constants.O_DIRECTORY);
  try {
    const below = dirname(path).slice(1) || '.';
    const directory = openBelow(root, below, constants.O_RDONLY | constants.O_DIRECTORY);
    const { mode, uid, gid, ino } = fstatSync(directory);
    const isSame =
      mode === was.mode &&
      uid === was.uid &&
      gid === was.gid &&
      (!was.onDisk || (ino === was.inode && isOfGeneration(directory, was.generation)));
    if (isSame) return directory;
    closeSync(directory);
    throw new Error(`${dirname(path)} is another directory, or has another owner or mode`);
  } finally {
    closeSync(root);
  }
}

/** Not every file system has generations. */
function isOfGeneration(fd: number, generation: number): boolean {
  return generation === 0 || (inodeGeneration(fd) ?? generation) === generation;
}
