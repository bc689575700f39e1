import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  unlinkSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { type NameIn, pathIn, setTimes } from '../../../system/file-calls.ts';
import { permissionsOf } from '../../../system/file-mode.ts';
import { codeOf, messageOf } from '../../../system/thrown.ts';
import {
  DELETED_CONTENT,
  DELETED_FILES,
  type DeletedFilePlan,
  deletedFilesSchema,
  handedInAs,
} from '../../images/plan/deleted-files.ts';
import { copyChunks } from '../copy-chunks.ts';
import { openImage, readImageText } from '../open-image.ts';
import type { GroupResource, GroupToRestore } from '../resource.ts';
import { openOthersDirectory, type Where } from './open-directory.ts';
import { StagingDirectory } from './staging-directory.ts';

/** A file without a name. */
interface Made {
  readonly fd: number;
  /** What is to be said of it. */
  readonly notes: readonly string[];
}

/** Makes the directory that nobody else can enter. */
type Stage = (directory: number) => StagingDirectory;

/**
 * Makes the deleted files that CRIU does not, because others than root can write to the directories that they
 * were in: see `bindLate`. CRIU opens them through the descriptors that it is handed, each with the flags and
 * the position that it had.
 * @param directory of the images
 * @param group where, and the first descriptor that CRIU has one under
 */
export function makeDeletedFiles(
  directory: string,
  { firstFd, inside }: Pick<GroupToRestore, 'firstFd' | 'inside'>,
  stage: Stage = (fd) => new StagingDirectory(fd),
): GroupResource {
  const path = join(directory, DELETED_FILES);
  const plans = existsSync(path) ? deletedFilesSchema.parse(JSON.parse(readImageText(path))) : [];
  const where = inside ?? { pid: process.pid, remade: new Set<string>() };
  let made =
    plans.length === 0 ? [] : makeAll(plans, directory, (plan, from) => makeOne(plan, from, where, stage));
  return {
    fds: made.map(({ fd }) => fd),
    options: plans.flatMap(({ id }, i) => ['--inherit-fd', `fd[${firstFd + i}]:${handedInAs(id)}`]),
    finish: (isRestored) => {
      const all = made;
      made = [];
      for (const { fd } of all) closeSync(fd);
      return isRestored ? all.flatMap(({ notes }) => notes) : [];
    },
  };
}

/** All of them, or none. Throws an Error. */
function makeAll(
  plans: readonly DeletedFilePlan[],
  images: string,
  make: (plan: DeletedFilePlan, content: number) => Made,
): Made[] {
  const content = openImage(join(images, DELETED_CONTENT));
  const made: Made[] = [];
  try {
    for (const plan of plans) made.push(make(plan, content));
    return made;
  } catch (error) {
    for (const { fd } of made) closeSync(fd);
    throw error;
  } finally {
    closeSync(content);
  }
}

function makeOne(plan: DeletedFilePlan, content: number, where: Where, stage: Stage): Made {
  try {
    const directory = openOthersDirectory(plan, where);
    try {
      return makeIn(directory, plan, content, stage(directory));
    } finally {
      closeSync(directory);
    }
  } catch (error) {
    throw new Error(`the deleted file ${plan.path} cannot be made: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * It is root's, and nobody else's to read, as long as it has a name that others see. Of a name that somebody
 * else has given to another file, it does without: it is deleted anyway.
 */
function makeIn(directory: number, plan: DeletedFilePlan, content: number, staging: StagingDirectory): Made {
  try {
    const { made, fd } = staging.create();
    try {
      copyChunks(content, fd, plan);
      ftruncateSync(fd, plan.identity.sizeBytes);
      const notes = deleteAs(made, [directory, basename(plan.path)], fd, plan.path, staging);
      return { fd: finished(fd, plan), notes };
    } finally {
      closeSync(fd);
    }
  } finally {
    staging.remove();
  }
}

/**
 * Gives a file its owner, mode and times.
 * @returns a descriptor that does not write: while one does, the file is no program that could be run
 * (deny_write_access() of the kernel)
 */
function finished(made: number, plan: DeletedFilePlan): number {
  const { uid, gid, mode } = plan.identity;
  const fd = openSync(`/proc/self/fd/${made}`, constants.O_RDONLY);
  try {
    fchownSync(fd, uid, gid);
    fchmodSync(fd, permissionsOf(mode));
    setTimes(fd, nanoseconds(plan.accessedMicroseconds), nanoseconds(plan.modifiedMicroseconds));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function nanoseconds(microseconds: number): bigint {
  return BigInt(microseconds) * 1000n;
}

/**
 * Gives a file the name that it had, and takes that away: its links in /proc tell it still. Throws an Error
 * if somebody has given it another name meanwhile.
 * @returns a sentence if the name is taken
 */
function deleteAs(
  made: NameIn,
  place: NameIn,
  fd: number,
  path: string,
  staging: StagingDirectory,
): string[] {
  const at = pathIn(place);
  try {
    staging.give(made, place);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    unlinkSync(pathIn(made));
    return [`the deleted file ${path} has another name in /proc: there is a file of that name`];
  }
  if (lstatSync(at, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino) unlinkSync(at);
  if (fstatSync(fd).nlink > 0) throw new Error('somebody has given it another name');
  return [];
}
