import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lchownSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { moveBetween, type NameIn, O_PATH, openBelow } from '../../../system/file-calls.ts';
import { permissionsOf } from '../../../system/file-mode.ts';
import { checked } from '../../../system/libc.ts';
import { withRoot } from '../../../system/namespaces.ts';
import { AF_UNIX, bind, listen } from '../../../system/sockets.ts';
import { codeOf } from '../../../system/thrown.ts';
import type { PlannedName } from '../../images/plan/restore-plan.ts';

/** What is left of a program that was killed has this name. */
const PREFIX = '.otherworld-';
const OTHERS = 0o077;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY;
/** In it: a `/` to bind a socket in, and what is moved out of the way. */
const [ROOT, TAKEN] = ['root', 'taken'];

/**
 * A directory that only root can enter, inside of one that others can write to. These can rename it, and take
 * it away while it is empty, but neither change nor see what is in it, which is reached by descriptors.
 */
export class StagingDirectory {
  readonly #parent: number;
  readonly #name = `${PREFIX}${randomBytes(16).toString('hex')}`;
  /** Leads into it, as long as it is not removed. */
  readonly fd: number;

  /** Makes it. Throws an Error if it cannot be made, or somebody has put another one there. */
  constructor(parent: number) {
    this.#parent = parent;
    mkdirSync(`/proc/self/fd/${parent}/${this.#name}`, 0o700);
    this.fd = openBelow(parent, this.#name, DIRECTORY);
    const { uid, mode, dev } = fstatSync(this.fd);
    const isMine = uid === process.geteuid?.() && (mode & OTHERS) === 0 && dev === fstatSync(parent).dev;
    if (isMine && readdirSync(`/proc/self/fd/${this.fd}`).length === 0) return;
    closeSync(this.fd);
    throw new Error('somebody has put another directory in place of a new one');
  }

  /**
   * Binds a socket by its name, with a directory in here for `/` and for the current one, gives its file its
   * owner and mode, and has it listen.
   * @returns where the file is; the descriptor is to be closed
   */
  bind(socket: number, { name, identity, backlog }: PlannedName): NameIn {
    mkdirSync(`/proc/self/fd/${this.fd}/${ROOT}`, 0o700);
    const root = openBelow(this.fd, ROOT, O_PATH | constants.O_DIRECTORY);
    try {
      const parent = withRoot(root, () => {
        makeAbove(name);
        const address = Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(name), Buffer.of(0)]);
        checked('bind', bind(socket, address, address.length));
        lchownSync(name, identity.uid, identity.gid);
        chmodSync(name, permissionsOf(identity.mode));
        return openSync(dirname(name), O_PATH | constants.O_DIRECTORY);
      });
      if (backlog !== undefined) checked('listen', listen(socket, backlog));
      return [parent, basename(name)];
    } finally {
      closeSync(root);
    }
  }

  /** Moves something into it. @returns where it is, as long as this is not removed */
  take(place: NameIn): NameIn {
    const taken: NameIn = [this.fd, TAKEN];
    moveBetween(place, taken);
    return taken;
  }

  /** Removes it, with all that is in it. */
  remove(): void {
    const at = `/proc/self/fd/${this.fd}`;
    try {
      for (const name of readdirSync(at)) rmSync(`${at}/${name}`, { recursive: true });
      removeEmpty(`/proc/self/fd/${this.#parent}/${this.#name}`);
    } finally {
      closeSync(this.fd);
    }
  }
}

/** Where somebody has renamed it, an empty directory stays. */
function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY', 'ENOTDIR'].includes(codeOf(error) ?? '')) throw error;
  }
}

/** Makes the directories that a name leads through, in the order in which it does: it may have a `..`. */
function makeAbove(name: string): void {
  for (let end = name.indexOf('/', 1); end >= 0; end = name.indexOf('/', end + 1))
    mkdirSync(name.slice(0, end), { recursive: true, mode: 0o700 });
}
