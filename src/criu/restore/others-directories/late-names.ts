import { closeSync, lstatSync, unlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { takeDescriptor } from '../../../system/descriptors.ts';
import { errnoText } from '../../../system/errno.ts';
import { moveBetween, type NameIn } from '../../../system/file-calls.ts';
import { inodeOf } from '../../../system/file-handle.ts';
import { typeOf } from '../../../system/file-mode.ts';
import { inNamespacesOf } from '../../../system/namespaces.ts';
import { messageOf } from '../../../system/thrown.ts';
import type { PlannedName } from '../../images/plan/restore-plan.ts';
import type { GroupResource } from '../resource.ts';
import { openOthersDirectory } from './open-directory.ts';
import { StagingDirectory } from './staging-directory.ts';

/** A name that a socket has again. */
interface Bound {
  readonly path: string;
  readonly place: NameIn;
  readonly device: bigint;
  readonly inode: bigint;
}

/**
 * Binds the sockets that CRIU has made without names, because others than root can write to the directory in
 * which their files are, or above it. CRIU binds by path: a link that somebody puts there meanwhile would
 * lead it, as root, elsewhere. (A mount over the directory for the time of the restore would hide from CRIU
 * what else it has to open there, and the kernel would keep that mount as the socket's own.)
 *
 * The socket is that of the held process itself, and so it has all that CRIU gives it. It is bound in a
 * directory that nobody else can enter, on the same mount, by the name that it had (getsockname(2)), gets
 * its owner and mode there, listens if it did, and is moved to its place. The place is a directory that is
 * held by a descriptor, to which no link has led, and which has the owner, the mode and, on a disk, the inode
 * of the old one.
 */
export function bindLate(names: readonly PlannedName[]): GroupResource {
  let bound: Bound[] = [];
  return {
    ready: () => {
      for (const name of names) {
        try {
          bound.push(inNamespacesOf(name.pid, () => bindName(name)));
        } catch (error) {
          return [`the unix socket ${name.path} cannot be bound: ${messageOf(error)}`];
        }
      }
      return [];
    },
    finish: (isRestored) => {
      const all = bound;
      bound = [];
      return all.flatMap((one) => {
        try {
          return isRestored ? [] : removeName(one);
        } finally {
          closeSync(one.place[0]);
        }
      });
    },
  };
}

/** @returns a sentence if it is there still, and cannot be removed */
function removeName({ path, place: [directory, name], device, inode }: Bound): string[] {
  const at = `/proc/self/fd/${directory}/${name}`;
  try {
    const now = lstatSync(at, { bigint: true, throwIfNoEntry: false });
    if (now?.dev === device && now.ino === inode) unlinkSync(at);
    return [];
  } catch (error) {
    return [`${path} cannot be removed: ${messageOf(error)}`];
  }
}

function bindName(name: PlannedName): Bound {
  const socket = takeDescriptor(name.pid, name.fd);
  if (socket < 0) throw new Error(`process ${name.pid} has no descriptor ${name.fd} (${errnoText(-socket)})`);
  try {
    const directory = openOthersDirectory(name);
    try {
      return bindIn(directory, socket, name);
    } catch (error) {
      closeSync(directory);
      throw error;
    }
  } finally {
    closeSync(socket);
  }
}

function bindIn(directory: number, socket: number, name: PlannedName): Bound {
  const place: NameIn = [directory, basename(name.path)];
  const staging = new StagingDirectory(directory);
  try {
    const made = staging.bind(socket, name);
    try {
      const stats = lstatSync(`/proc/self/fd/${made[0]}/${made[1]}`, { bigint: true });
      takeOldAway(place, name, staging);
      moveBetween(made, place);
      return { path: name.path, place, device: stats.dev, inode: stats.ino };
    } finally {
      closeSync(made[0]);
    }
  } finally {
    staging.remove();
  }
}

/**
 * Takes the file of the dead system's socket from the place of the new one. Throws an Error, and leaves it,
 * if something is there that is not provably that: it is somebody's who runs now. Of a memory file system
 * everything has gone.
 */
function takeOldAway(place: NameIn, { path, identity: was }: PlannedName, staging: StagingDirectory): void {
  const [directory, name] = place;
  if (lstatSync(`/proc/self/fd/${directory}/${name}`, { throwIfNoEntry: false }) === undefined) return;
  const isOld = (fd: number, at: string): boolean => {
    const stats = lstatSync(`/proc/self/fd/${fd}/${at}`);
    const now = inodeOf(fd, at);
    const isItsInode = now?.inode === was.inode && now.generation === was.generation;
    return was.onDisk && isItsInode && typeOf(stats.mode) === typeOf(was.mode);
  };
  const wrong = new Error(`something else is at ${path}`);
  if (!isOld(directory, name)) throw wrong;
  // Whoever can write to the directory may have put another one there: what was taken is looked at.
  const taken = staging.take(place);
  if (isOld(...taken)) return;
  moveBetween(taken, place);
  throw wrong;
}
