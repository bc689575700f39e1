import { closeSync, lstatSync, openSync, realpathSync, type Stats } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { readPreparation } from '../../criu/restore/index.ts';
import type { FileIdentity } from '../../model/open-file.ts';
import { waitForWriteBack } from '../../system/file-calls.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
import { inodeGeneration } from '../../system/inode-generation.ts';
import { messageOf } from '../../system/thrown.ts';
import type { FoundFile, FoundFiles } from './found-file.ts';
import { type LookAtImage, makeDirectory, makeFile } from './make-files.ts';

/** Why a group cannot be restored: a file that it has open is not what it was. */
export interface FileProblem {
  readonly path: string;
  /** Goes on after the path: `is not there`. */
  readonly problem: string;
}

const typeNames: Readonly<Record<number, string>> = {
  [fileType.regular]: 'a regular file',
  [fileType.directory]: 'a directory',
  [fileType.character]: 'a character device',
  [fileType.block]: 'a block device',
  [fileType.fifo]: 'a FIFO',
  [fileType.socket]: 'a socket',
  [fileType.symlink]: 'a symbolic link',
};

function typeName(mode: number): string {
  return typeNames[typeOf(mode)] ?? 'something else';
}

function generationAt(path: string): number | undefined {
  const fd = openSync(path, 'r');
  try {
    return inodeGeneration(fd);
  } finally {
    closeSync(fd);
  }
}

function compare(
  stats: Pick<Stats, 'mode' | 'rdev' | 'ino' | 'size'>,
  was: FileIdentity,
  generationOf: () => number | undefined,
): string | undefined {
  const generationDiffers = (): boolean => {
    if (typeOf(was.mode) !== fileType.regular || was.generation === 0) return false;
    const generation = generationOf();
    return generation !== undefined && generation !== was.generation;
  };
  if (typeOf(stats.mode) !== typeOf(was.mode)) {
    return `is ${typeName(stats.mode)} and was ${typeName(was.mode)}`;
  }
  if (stats.rdev !== was.rdev) return `is device ${stats.rdev} and was ${was.rdev}`;
  if (!was.onDisk) return undefined;
  if (stats.ino !== was.inode || generationDiffers()) {
    return `is another file than before the panic (inode ${stats.ino}, was ${was.inode})`;
  }
  const isRegular = typeOf(was.mode) === fileType.regular;
  if (isRegular && stats.size !== was.sizeBytes) return `has ${stats.size} bytes instead of ${was.sizeBytes}`;
  return undefined;
}

/**
 * Whether a file is still the one it was; a sentence's end if it is not. A link at the end of the path is not
 * followed: paths come out of the dead kernel without any, but where the link itself is open (O_PATH with
 * O_NOFOLLOW).
 */
function checkFile(path: string, was: FileIdentity): string | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats === undefined ? 'is not there' : compare(stats, was, () => generationAt(path));
}

/**
 * The same of what was noted at the paths of a group after its files were made and checked: with this its
 * restored processes are compared, and others may have put another file there in between. To be called where
 * other processes run.
 */
export function checkNoted(
  checks: readonly { readonly path: string; readonly identity: FileIdentity }[],
  found: FoundFiles,
): FileProblem[] {
  return checks.flatMap(({ path, identity }) => {
    const noted = found.get(path);
    const problem = noted === undefined ? 'is not there' : compareNoted(noted, identity);
    return problem === undefined ? [] : [{ path, problem }];
  });
}

function compareNoted({ stats, generation }: FoundFile, was: FileIdentity): string | undefined {
  const { mode, rdev, ino, size } = stats;
  const numbers = { mode: Number(mode), rdev: Number(rdev), ino: Number(ino), size: Number(size) };
  return compare(numbers, was, () => generation);
}

/**
 * A socket is bound by its name. Throws the file system's error if that leads nowhere; links are followed
 * where they are, before a `..` behind them.
 */
function checkSocketName(name: string, path: string): string | undefined {
  const place = join(realpathSync.native(dirname(name)), basename(name));
  return place === path
    ? undefined
    : `is the file of a socket that was bound as ${name}: that is ${place} now`;
}

/**
 * Makes what a group needs before it is restored (files of memory file systems, and the directories of its
 * sockets) and looks whether the files on disks are still the same, and whether names of sockets lead to
 * where they led. To be called for all groups before the first one is restored: `made` collects the paths
 * that several groups share. A group with problems must not be restored.
 *
 * A file that another group uses as well is made of what the disk has taken, or it is not made, and that
 * group makes it of its own images. The kernel tells of an error of the disk once, so nothing more is made of
 * images of which it was told.
 * @param look see `makeFile`
 */
export function makeAndCheckFiles(
  directory: string,
  made: Set<string> = new Set(),
  look: LookAtImage = waitForWriteBack,
): FileProblem[] {
  const preparation = readPreparation(directory);
  const problems: FileProblem[] = [];
  const attempt = (path: string, step: () => string | undefined) => {
    try {
      const problem = step();
      if (problem !== undefined) problems.push({ path, problem });
    } catch (error) {
      problems.push({
        path,
        problem: `cannot be made or checked: ${messageOf(error)}`,
      });
    }
  };
  attempt('directories', () => {
    for (const one of preparation.directories) makeDirectory(one);
    return undefined;
  });
  let isTaken = true;
  const lookOnce: LookAtImage = (fd) => {
    try {
      look(fd);
    } catch (error) {
      isTaken = false;
      throw new Error(`the disk did not take all of its image: ${messageOf(error)}`, { cause: error });
    }
  };
  for (const file of preparation.files) {
    if (!isTaken) break;
    attempt(file.path, () => {
      if (made.has(file.path)) return undefined;
      if (lstatSync(file.path, { throwIfNoEntry: false }) !== undefined) return 'is there already';
      makeFile(directory, file, lookOnce);
      made.add(file.path);
      return undefined;
    });
  }
  for (const { path, identity } of preparation.checks) attempt(path, () => checkFile(path, identity));
  for (const { name, path } of preparation.socketNames) attempt(path, () => checkSocketName(name, path));
  return problems;
}
