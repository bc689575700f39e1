import {
  closeSync,
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
import { moveBetween, type NameIn, setTimes } from '../../../system/file-calls.ts';
import { permissionsOf } from '../../../system/file-mode.ts';
import { inNamespacesOf } from '../../../system/namespaces.ts';
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
import type { GroupResource } from '../resource.ts';
import { openOthersDirectory } from './open-directory.ts';
import { StagingDirectory } from './staging-directory.ts';

/** A file without a name. */
interface Made {
  readonly fd: number;
  /** What is to be said of it. */
  readonly notes: readonly string[];
}

/**
 * Makes the deleted files that CRIU does not, because others than root can write to the directories that they
 * were in: see `bindLate`. CRIU opens them through the descriptors that it is handed, each with the flags and
 * the position that it had.
 * @param directory of the images
 * @param options the first descriptor that CRIU has one under, and a process in the mount namespace of the
 * restored ones
 */
export function makeDeletedFiles(
  directory: string,
  { firstFd, inside }: { readonly firstFd: number; readonly inside: number | undefined },
): GroupResource {
  const path = join(directory, DELETED_FILES);
  const plans = existsSync(path) ? deletedFilesSchema.parse(JSON.parse(readImageText(path))) : [];
  let made = plans.length === 0 ? [] : makeAll(plans, directory, inside ?? process.pid);
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
function makeAll(plans: readonly DeletedFilePlan[], images: string, inside: number): Made[] {
  const content = openImage(join(images, DELETED_CONTENT));
  const made: Made[] = [];
  try {
    return inNamespacesOf(inside, () => {
      for (const plan of plans) made.push(makeOne(plan, content));
      return made;
    });
  } catch (error) {
    for (const { fd } of made) closeSync(fd);
    throw error;
  } finally {
    closeSync(content);
  }
}

function makeOne(plan: DeletedFilePlan, content: number): Made {
  try {
    const directory = openOthersDirectory(plan);
    try {
      return makeIn(directory, plan, content);
    } finally {
      closeSync(directory);
    }
  } catch (error) {
    throw new Error(`the deleted file ${plan.path} cannot be made: ${messageOf(error)}`, { cause: error });
  }
}

/** Of a name that somebody else has given to another file, the file does without: it is deleted anyway. */
function makeIn(directory: number, plan: DeletedFilePlan, content: number): Made {
  const staging = new StagingDirectory(directory);
  try {
    const made: NameIn = [staging.fd, basename(plan.path)];
    const fd = openSync(`/proc/self/fd/${made[0]}/${made[1]}`, 'wx+', 0o600);
    try {
      fill(fd, plan, content);
      return { fd, notes: deleteAs(made, [directory, made[1]], fd, plan.path) };
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  } finally {
    staging.remove();
  }
}

function fill(fd: number, plan: DeletedFilePlan, content: number): void {
  const { uid, gid, mode, sizeBytes } = plan.identity;
  copyChunks(content, fd, plan);
  ftruncateSync(fd, sizeBytes);
  fchownSync(fd, uid, gid);
  fchmodSync(fd, permissionsOf(mode));
  setTimes(fd, nanoseconds(plan.accessedMicroseconds), nanoseconds(plan.modifiedMicroseconds));
}

function nanoseconds(microseconds: number): bigint {
  return BigInt(microseconds) * 1000n;
}

/**
 * Gives a file the name that it had, and takes that away: its links in /proc tell it still. Throws an Error
 * if somebody has given it another name meanwhile.
 * @returns a sentence if the name is taken
 */
function deleteAs(made: NameIn, place: NameIn, fd: number, path: string): string[] {
  const at = `/proc/self/fd/${place[0]}/${place[1]}`;
  try {
    moveBetween(made, place);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    unlinkSync(`/proc/self/fd/${made[0]}/${made[1]}`);
    return [`the deleted file ${path} has another name in /proc: there is a file of that name`];
  }
  if (lstatSync(at, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino) unlinkSync(at);
  if (fstatSync(fd).nlink > 0) throw new Error('somebody has given it another name');
  return [];
}
