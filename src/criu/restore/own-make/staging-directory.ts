import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { moveBetween, type NameIn, O_PATH, openBelow, pathIn } from '../../../system/file-calls.ts';
import { checked } from '../../../system/libc.ts';
import { withRoot } from '../../../system/namespaces.ts';
import { AF_UNIX, bind, SUN_PATH_BYTES } from '../../../system/sockets.ts';
import { codeOf } from '../../../system/thrown.ts';
import { removeInherited } from '../../../system/xattr.ts';

/** What is left of a program that was killed has this name. */
const PREFIX = '.otherworld-';
const OTHERS = 0o077;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY;
/** In it: a `/` to bind a socket in, a file that is made, and what is moved out of the way. */
const [ROOT, FILE, TAKEN] = ['root', 'file', 'taken'];

/**
 * A directory that only root can enter, inside of one that others can write to. These can rename it, and take
 * it away while it is empty, but neither change nor see what is in it, which is reached by descriptors. What
 * is made in it inherits no ACL.
 */
export class StagingDirectory {
  readonly #parent: number;
  readonly #name = `${PREFIX}${randomBytes(16).toString('hex')}`;
  readonly #fd: number;

  /** Makes it. Throws an Error if it cannot be made, or somebody has put another one there. */
  constructor(parent: number) {
    this.#parent = parent;
    mkdirSync(pathIn([parent, this.#name]), 0o700);
    this.#fd = openBelow(parent, this.#name, DIRECTORY);
    if (!this.#isMine()) {
      // Whatever is in it is somebody else's.
      closeSync(this.#fd);
      throw new Error('somebody has put another directory in place of a new one');
    }
    try {
      // Not the link of /proc itself.
      removeInherited(`${this.path}/.`);
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  #isMine(): boolean {
    const { uid, mode, dev } = fstatSync(this.#fd);
    const isRoots = uid === process.geteuid?.() && (mode & OTHERS) === 0;
    return isRoots && dev === fstatSync(this.#parent).dev && readdirSync(this.path).length === 0;
  }

  /** Leads there for this program, as long as it is not removed. */
  get path(): string {
    return `/proc/self/fd/${this.#fd}`;
  }

  /** Makes a file of root's own. @returns where it is, and its descriptor */
  create(): { readonly made: NameIn; readonly fd: number } {
    const made: NameIn = [this.#fd, FILE];
    return { made, fd: openSync(pathIn(made), 'wx+', 0o600) };
  }

  /**
   * Binds a socket by its name, with a directory in here for `/` and for the current one.
   * @returns where its file is; the descriptor is to be closed
   */
  bind(socket: number, name: string): NameIn {
    mkdirSync(pathIn([this.#fd, ROOT]), 0o700);
    const root = openBelow(this.#fd, ROOT, O_PATH | constants.O_DIRECTORY);
    try {
      const parent = withRoot(root, () => {
        makeAbove(name);
        const path = Buffer.from(name);
        // A name that fills it all has no zero byte.
        const end = Buffer.alloc(path.length < SUN_PATH_BYTES ? 1 : 0);
        const address = Buffer.concat([Buffer.of(AF_UNIX, 0), path, end]);
        checked('bind', bind(socket, address, address.length));
        return openSync(dirname(name), O_PATH | constants.O_DIRECTORY);
      });
      return [parent, basename(name)];
    } finally {
      closeSync(root);
    }
  }

  /** Moves something into it, whoever it belongs to. @returns where it is, as long as this is not removed */
  take(place: NameIn): NameIn {
    const taken: NameIn = [this.#fd, TAKEN];
    moveBetween(place, taken);
    return taken;
  }

  /** Moves what was made to its place. */
  give(made: NameIn, place: NameIn): void {
    moveBetween(made, place);
  }

  /** Where it is by now. */
  whereabouts(): string {
    return readlinkSync(this.path);
  }

  /**
   * Removes it, with what was made in it and nothing else: with what was taken, and may be anybody's, it
   * stays.
   */
  remove(): void {
    try {
      rmSync(pathIn([this.#fd, ROOT]), { recursive: true, force: true });
      rmSync(pathIn([this.#fd, FILE]), { force: true });
    } finally {
      closeSync(this.#fd);
    }
    removeIfEmpty(pathIn([this.#parent, this.#name]));
  }
}

/** What somebody has put in its place stays, unless it is an empty directory. */
function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY', 'ENOTDIR'].includes(codeOf(error) ?? '')) throw error;
  }
}

/** Makes the directories that a name leads through, in the order in which it does: it may have a `..`. */
function makeAbove(name: string): void {
  for (let end = name.indexOf('/', 1); end >= 0; end = name.indexOf('/', end + 1))
    mkdirSync(name.slice(0, end), { recursive: true, mode: 0o700 });
}
