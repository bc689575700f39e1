import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { openOwnDirectory } from './directory-lock.ts';
import { StateError } from './state-error.ts';
import { codeOf } from './thrown.ts';
import { ownershipProblem } from './trusted-path.ts';

const TEMPORARY = '.new';

/**
 * Replaces a file so that after a crash at any moment either the old or the new content is there, whole, and
 * the new one once this function has returned: written beside it under a name of its own, fsynced, renamed,
 * the directory fsynced (rename(2), fsync(2)). Missing directories are made with mode 0700. Whoever changes
 * what the file held before holds its directory's lock meanwhile.
 * @throws StateError if others can write to the directory
 */
export function replaceFile(path: string, content: string | Uint8Array, mode = 0o600): void {
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const directoryFd = openOwnDirectory(directory);
  try {
    const beside = `${path}.${randomUUID()}${TEMPORARY}`;
    try {
      writeNew(beside, content, mode);
      renameSync(beside, path);
    } catch (error) {
      rmSync(beside, { force: true });
      throw error;
    }
    fsyncSync(directoryFd);
  } finally {
    closeSync(directoryFd);
  }
}

function writeNew(path: string, content: string | Uint8Array, mode: number): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const fd = openSync(path, flags, mode);
  try {
    writeFileSync(fd, content);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Removes what replacing a file has left beside it because its process, or the machine, died. Only for
 * whoever holds the directory's lock: nobody else is in the middle of it then.
 */
export function removeLeftovers(path: string): void {
  const directory = dirname(path);
  if (!existsSync(directory)) return;
  const start = `${basename(path)}.`;
  const left = readdirSync(directory).filter((name) => name.startsWith(start) && name.endsWith(TEMPORARY));
  for (const name of left) rmSync(join(directory, name), { force: true });
}

/**
 * Reads a file of ours, not through a link.
 * @returns its text; undefined if there is none
 * @throws StateError if it is no regular file, or others can write to it: then what it says is anybody's word
 */
export function readStateFile(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    if (codeOf(error) === 'ELOOP') throw new StateError(`${path} is a symbolic link`);
    throw error;
  }
  try {
    const stats = fstatSync(fd);
    const problem = stats.isFile() ? ownershipProblem(stats) : 'is no regular file';
    if (problem !== undefined) throw new StateError(`${path} ${problem}`);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

/**
 * Keeps a damaged file under another name, for people to look at, before it is replaced. It stays under its
 * own name too until then, so that a crash in between loses nothing.
 * @returns the other name
 */
export function setAside(path: string): string {
  const start = `${path}.damaged-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}`;
  let aside = start;
  for (let number = 2; lstatSync(aside, { throwIfNoEntry: false }) !== undefined; number++) {
    aside = `${start}-${number}`;
  }
  if (lstatSync(path).isFile()) linkSync(path, aside);
  else renameSync(path, aside);
  return aside;
}
