import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { permissionsOf, STICKY, WRITABLE_BY_OTHERS } from './file-mode.ts';

/** As many links as the kernel follows in one path (MAXSYMLINKS of linux/namei.h). */
const MOST_LINKS = 40;

/**
 * `belongs to user 1000`: why somebody else than root, or whoever runs this, can change a file; undefined if
 * nobody can.
 */
export function ownershipProblem(stats: Pick<Stats, 'uid' | 'mode' | 'isSymbolicLink'>): string | undefined {
  if (stats.uid !== 0 && stats.uid !== process.geteuid?.()) return `belongs to user ${stats.uid}`;
  // A link's own mode means nothing (symlink(7)).
  if (stats.isSymbolicLink() || (stats.mode & WRITABLE_BY_OTHERS) === 0) return undefined;
  return `can be written by others (mode ${permissionsOf(stats.mode).toString(8)})`;
}

/**
 * Why a path cannot be relied on: the first of its components, those that its symbolic links lead through
 * among them, that somebody else than root, or whoever runs this, can change or replace. Nobody but the owner
 * takes a name away from a directory with the sticky bit (/tmp): such a directory may be on the way, and is
 * no good as the end.
 * @param path an absolute path
 * @param missing `allowed`: what is not there yet will be made by whoever asks
 * @returns a sentence that begins with the component's path; undefined if the path can be relied on
 */
export function pathProblem(path: string, missing: 'allowed' | 'refused' = 'refused'): string | undefined {
  const rest = path.split('/');
  let at = '/';
  let links = 0;
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    const here = name === '..' ? dirname(at) : join(at, name);
    const stats = lstatSync(here, { throwIfNoEntry: false });
    if (stats === undefined) return missing === 'allowed' ? undefined : `${here} is not there`;
    const isOnTheWay = rest.length > 0 || missing === 'allowed';
    const isSticky = stats.isDirectory() && (stats.mode & STICKY) !== 0;
    const problem = ownershipProblem(isOnTheWay && isSticky ? { ...owned(stats), mode: 0 } : stats);
    if (problem !== undefined) return `${here} ${problem}`;
    if (!stats.isSymbolicLink()) {
      at = here;
      continue;
    }
    if (++links > MOST_LINKS) return `${path} has too many symbolic links`;
    const target = readlinkSync(here);
    if (target.startsWith('/')) at = '/';
    rest.unshift(...target.split('/'));
  }
  return undefined;
}

function owned({ uid }: Stats): Pick<Stats, 'uid' | 'isSymbolicLink'> {
  return { uid, isSymbolicLink: () => false };
}
