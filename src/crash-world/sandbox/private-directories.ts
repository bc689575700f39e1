import { lstatSync, readdirSync, renameSync, rmdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { PrivateDirectory } from '../../model/sandbox.ts';
import { codeOf } from '../../system/thrown.ts';
import type { MountLine } from './sandbox-mounts.ts';

/**
 * Where the root of a mount lies outside of its namespace: below the mount of the same file system that shows
 * the most of its path. Undefined if none does.
 */
export function outsidePath(inner: MountLine, outside: readonly MountLine[]): string | undefined {
  const above = outside
    .filter(({ device, root }) => device === inner.device && isBelow(inner.root, root))
    .toSorted((a, b) => b.root.length - a.root.length)[0];
  return above === undefined ? undefined : join(above.path, inner.root.slice(above.root.length));
}

function isBelow(path: string, directory: string): boolean {
  return directory === '/' || path === directory || path.startsWith(`${directory}/`);
}

/**
 * Gives the private directories of a new sandbox what those of the old one had (`PrivateTmp=`): it is on the
 * same file system, and moved as it is. What could not be moved is found by those who look for their files.
 * The directories above belong to root alone, so nobody changes them meanwhile.
 * @param inside the mounts of the new sandbox, and those of the system around it
 * @throws Error if a directory is not where it has to be; the file system's error
 */
export function movePrivateFiles(
  directories: readonly PrivateDirectory[],
  inside: readonly MountLine[],
  outside: readonly MountLine[],
): void {
  for (const { path, from } of directories) {
    const mount = inside.find((line) => line.path === path);
    const to = mount === undefined ? undefined : outsidePath(mount, outside);
    if (to === undefined) throw new Error(`the private ${path} of its sandbox is nowhere outside`);
    // Nothing was in it, or it was on a tmpfs that could not be saved.
    if (lstatSync(from, { throwIfNoEntry: false }) === undefined) continue;
    for (const directory of [dirname(from), dirname(to)]) checkOwn(directory);
    // Somebody shares the new one, and has begun to use it.
    const [taken] = readdirSync(to);
    if (taken !== undefined) throw new Error(`the private ${path} of its sandbox has ${taken} already`);
    for (const name of readdirSync(from)) renameSync(join(from, name), join(to, name));
    removeEmpty(from);
    removeEmpty(dirname(from));
  }
}

/** Throws an Error if anybody but root can get at what is in a directory, or it is behind a link. */
function checkOwn(directory: string): void {
  const stats = lstatSync(directory);
  if (!stats.isDirectory() || stats.uid !== 0 || (stats.mode & 0o077) !== 0)
    throw new Error(`${directory} is not a directory of root's alone`);
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EBUSY') throw error;
  }
}
