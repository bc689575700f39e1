import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { O_PATH, openBelow } from '../../../system/file-calls.ts';
import { inodeGeneration } from '../../../system/inode-generation.ts';
import { inNamespacesOf } from '../../../system/namespaces.ts';
import type { PlannedName } from '../../images/plan/restore-plan.ts';

/** Where directories are looked for. */
export interface Where {
  /** A process that sees them by their paths. */
  readonly pid: number;
  /**
   * Directories that are made anew for each start, so that their inodes are others: what was directly in one
   * of them has been moved (`PrivateTmp=`).
   */
  readonly remade: ReadonlySet<string>;
}

/**
 * Opens the directory that something is made in, which others than root can write to. No link is on the way,
 * whoever puts one there. Throws an Error if it is not the one that it was. It is of the mount namespace of
 * another process; what is done by its descriptor, and by links of /proc, needs nothing else of that.
 */
export function openOthersDirectory(
  { path, directory: was }: Pick<PlannedName, 'path' | 'directory'>,
  { pid, remade }: Where,
): number {
  const directory = inNamespacesOf(pid, () => openNoLinks(dirname(path)));
  const { mode, uid, gid, ino } = fstatSync(directory);
  const isKnown = was.onDisk && !remade.has(dirname(path));
  const isSame =
    mode === was.mode &&
    uid === was.uid &&
    gid === was.gid &&
    (!isKnown || (ino === was.inode && isOfGeneration(directory, was.generation)));
  if (isSame) return directory;
  closeSync(directory);
  throw new Error(`${dirname(path)} is another directory, or has another owner or mode`);
}

function openNoLinks(path: string): number {
  const root = openSync('/', O_PATH | constants.O_DIRECTORY);
  try {
    return openBelow(root, path.slice(1) || '.', constants.O_RDONLY | constants.O_DIRECTORY);
  } finally {
    closeSync(root);
  }
}

/** Not every file system has generations. */
function isOfGeneration(fd: number, generation: number): boolean {
  return generation === 0 || (inodeGeneration(fd) ?? generation) === generation;
}
