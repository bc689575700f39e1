import { chmodSync, closeSync, lchownSync, lstatSync, unlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { takeDescriptor } from '../../../system/descriptors.ts';
import { errnoText } from '../../../system/errno.ts';
import { type NameIn, pathIn } from '../../../system/file-calls.ts';
import { permissionsOf } from '../../../system/file-mode.ts';
import { messageOf } from '../../../system/thrown.ts';
import { aboutAttribute, setAttribute } from '../../../system/xattr.ts';
import type { PlannedName } from '../../images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from '../held-process.ts';
import type { GroupResource } from '../resource.ts';
import type { Tracee } from '../tracee.ts';
import { takeOldAway } from './old-socket.ts';
import { openOthersDirectory } from './open-directory.ts';
import { StagingDirectory } from './staging-directory.ts';

/** A name that a socket has again. */
interface Bound {
  readonly path: string;
  readonly place: NameIn;
  readonly device: bigint;
  readonly inode: bigint;
}

/** How sockets are bound. */
interface Binding {
  /** See `Where` of open-directory.ts. */
  readonly remade: ReadonlySet<string>;
  readonly stage: (directory: number) => StagingDirectory;
  readonly freezer: Freezer;
  /** Is told of each one as soon as it has its name. */
  readonly note: (bound: Bound) => void;
}

/**
 * Binds the sockets that CRIU has made without names. CRIU binds by path, and by the name that a socket was
 * bound with. Where others than root can write to the directory of its file, or above it, a link that
 * somebody puts there meanwhile would lead it, as root, elsewhere; and a file that was renamed since, whoever
 * can write there, would be made under its old name. (A mount over the directory for the time of the restore
 * would hide from CRIU what else it has to open there, and the kernel would keep that mount as the socket's
 * own.)
 *
 * The socket is that of the held process itself, and so it has all that CRIU gives it. It is bound in a
 * directory that nobody else can enter, on the same mount, by the name that it had (getsockname(2)), gets
 * its owner and mode there, listens if it did, and is moved to its place. The place is a directory that is
 * held by a descriptor, to which no link has led, and which has the owner, the mode and, on a disk, the inode
 * of the old one.
 * @param remade see `Where`
 * @param stage makes the directory that nobody else can enter
 */
export function bindLate(
  names: readonly PlannedName[],
  remade: ReadonlySet<string>,
  stage: Binding['stage'] = (directory) => new StagingDirectory(directory),
): GroupResource {
  let bound: Bound[] = [];
  return {
    held: async (freezer) => {
      for (const name of names) {
        try {
          bindName(name, { remade, stage, freezer, note: (one) => bound.push(one) });
          await freezer.frozen();
        } catch (error) {
          throw new Error(`the unix socket ${name.path} cannot be bound: ${messageOf(error)}`, {
            cause: error,
          });
        }
      }
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
function removeName({ path, place, device, inode }: Bound): string[] {
  const at = pathIn(place);
  try {
    const now = lstatSync(at, { bigint: true, throwIfNoEntry: false });
    if (now?.dev === device && now.ino === inode) unlinkSync(at);
    return [];
  } catch (error) {
    return [`${path} cannot be removed: ${messageOf(error)}`];
  }
}

function bindName(name: PlannedName, binding: Binding): void {
  const { pid } = name;
  const socket = takeDescriptor(pid, name.fd);
  if (socket < 0) throw new Error(`process ${pid} has no descriptor ${name.fd} (${errnoText(-socket)})`);
  try {
    const directory = openOthersDirectory(name, { pid, remade: binding.remade });
    let isNoted = false;
    const note = (bound: Bound): void => {
      binding.note(bound);
      isNoted = true;
    };
    try {
      bindIn(directory, socket, name, { ...binding, note });
    } finally {
      if (!isNoted) closeSync(directory);
    }
  } finally {
    closeSync(socket);
  }
}

function bindIn(
  directory: number,
  socket: number,
  name: PlannedName,
  { stage, freezer, note }: Binding,
): void {
  const place: NameIn = [directory, basename(name.path)];
  const staging = stage(directory);
  try {
    const made = staging.bind(socket, name.name);
    try {
      if (name.backlog !== undefined) listenAs(name, name.backlog, freezer);
      const attributes = takeOldAway(place, name, staging);
      const at = pathIn(made);
      lchownSync(at, name.identity.uid, name.identity.gid);
      for (const { name: attribute, value } of attributes)
        aboutAttribute(attribute, () => setAttribute(at, attribute, value));
      chmodSync(at, permissionsOf(name.identity.mode));
      const { dev: device, ino: inode } = lstatSync(at, { bigint: true });
      staging.give(made, place);
      note({ path: name.path, place, device, inode });
    } finally {
      closeSync(made[0]);
    }
  } finally {
    staging.remove();
  }
}

const SYS_listen = 50;

/**
 * Has the process itself make its socket listen: the kernel tells clients of who did (SO_PEERCRED,
 * unix_listen() of net/unix/af_unix.c).
 */
function listenAs({ pid, fd }: PlannedName, backlog: number, freezer: Freezer): void {
  const listen = (tracee: Tracee): number => tracee.call(pid, SYS_listen, fd, backlog);
  const result = whileHeld(pid, freezer, listen);
  if (result !== 0) throw new Error(`listen fails (${errnoText(-result)})`);
}
