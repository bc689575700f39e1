import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as z from 'zod';
import { RUN_DIRECTORY } from '../config/paths.ts';
import { HIDDEN_DIRECTORY } from '../model/sandbox.ts';
import { permissionsOf, STICKY } from '../system/file-mode.ts';
import { readStateFile, replaceFile } from '../system/state-file.ts';
import { messageOf } from '../system/thrown.ts';
import { goDown, isRootsAlone, type Passed } from './made-paths.ts';

const O_PATH = 0o10000000;
const WRITABLE_BY_GROUP = 0o020;
const WRITABLE_BY_ALL = 0o002;

/** The directories that are closed now, for whoever puts them back if this program cannot. */
const RECORD = join(RUN_DIRECTORY, 'closed-directories.json');

const recordSchema = z.array(
  z.strictObject({
    path: z.string(),
    dev: z.string(),
    ino: z.string(),
    uid: z.int(),
    gid: z.int(),
    mode: z.int(),
  }),
);
type Entry = z.infer<typeof recordSchema>[number];

/** Whose directories may be closed. */
export interface Closing {
  /** The users of the processes; root's may be, too. */
  readonly uids: readonly number[];
  /** Directories that all may write to, and that nobody outside of the sandbox has. */
  readonly own: ReadonlySet<string>;
}

/**
 * Directories in which CRIU makes files by their paths, as root. Somebody who can write to one of them could
 * lead it to other files meanwhile: for that time they belong to root, and nobody else may write to them.
 */
export class ClosedDirectories {
  readonly #root: string;
  readonly #closing: Closing;
  readonly #record: string;
  #closed: (Entry & { readonly fd: number })[] = [];
  /** Directories for deleted files, and what they are in. */
  readonly #hidden = new Map<string, number>();

  /** @param root see `goDown` */
  constructor(root: string, closing: Closing, record: string = RECORD) {
    this.#root = root;
    this.#closing = closing;
    this.#record = record;
  }

  /**
   * Closes the directories on the way to something that is to be made.
   * @returns why that cannot be done; undefined if nobody but root can write there now
   */
  close(path: string): string | undefined {
    /** All may write to it, and nobody takes what is root's away. */
    let sticky: string | undefined;
    try {
      goDown(
        path,
        (directory) => {
          if (sticky !== undefined && directory.stats.uid !== 0) throw new Error(open(sticky));
          sticky = this.#isSticky(directory) ? directory.path : undefined;
          if (sticky === undefined) return this.#pass(directory);
          this.#hide(directory, dirname(path));
          return false;
        },
        this.#root,
      );
      return sticky === undefined ? undefined : `${path} cannot be made: ${open(sticky)}`;
    } catch (error) {
      return `${path} cannot be made: ${messageOf(error)}`;
    }
  }

  #isSticky({ path, stats: { uid, mode } }: Passed): boolean {
    const isForAll = (mode & WRITABLE_BY_ALL) !== 0 && !this.#closing.own.has(path);
    return isForAll && uid === 0 && (mode & STICKY) !== 0;
  }

  /** Makes the directory in which deleted files are made, if that is where this way leads to. */
  #hide({ path, fd }: Passed, directory: string): void {
    if (dirname(directory) !== path || !HIDDEN_DIRECTORY.test(basename(directory))) return;
    if (this.#hidden.has(directory)) return;
    mkdirSync(`/proc/self/fd/${fd}/${basename(directory)}`, { mode: 0o700 });
    this.#hidden.set(directory, openSync(`/proc/self/fd/${fd}`, O_PATH | constants.O_DIRECTORY));
  }

  /** @returns whether nobody but root can have made what is in it */
  #pass({ path, fd, stats }: Passed): boolean {
    const { uid, gid, mode } = stats;
    const [dev, ino] = [String(stats.dev), String(stats.ino)];
    if (this.#closed.some((other) => other.dev === dev && other.ino === ino)) return false;
    if (isRootsAlone(stats)) return true;
    const isForAll = (mode & WRITABLE_BY_ALL) !== 0 && !this.#closing.own.has(path);
    if (isForAll) throw new Error(open(path));
    if (uid !== 0 && !this.#closing.uids.includes(uid))
      throw new Error(`user ${uid} can write to ${path} meanwhile`);
    // Of its own: `goDown` closes the one that it goes by.
    const own = openSync(`/proc/self/fd/${fd}`, O_PATH | constants.O_DIRECTORY);
    this.#closed.push({ ...{ path, dev, ino, uid, gid }, mode: permissionsOf(mode), fd: own });
    this.#save();
    const place = `/proc/self/fd/${own}`;
    chownSync(place, 0, gid);
    // Its owner could change it until now.
    const now = fstatSync(own);
    chmodSync(place, permissionsOf(now.mode) & ~(WRITABLE_BY_GROUP | WRITABLE_BY_ALL));
    return false;
  }

  #save(): void {
    // What nobody outside has goes with the sandbox.
    const shared = this.#closed.filter(({ path }) => !this.#closing.own.has(path));
    const entries = shared.map(({ fd: _, ...entry }) => entry);
    replaceFile(this.#record, JSON.stringify(entries));
  }

  /** Puts all of them back as they were. @returns a sentence for each of which that is not possible */
  open(): string[] {
    const problems = this.#closed.toReversed().flatMap(({ fd, ...entry }) => {
      try {
        putBack(`/proc/self/fd/${fd}`, entry);
        return [];
      } catch (error) {
        return [stays(entry, messageOf(error))];
      } finally {
        closeSync(fd);
      }
    });
    for (const [path, fd] of this.#hidden) {
      try {
        rmdirSync(`/proc/self/fd/${fd}/${basename(path)}`);
      } catch (error) {
        problems.push(`${path} cannot be removed: ${messageOf(error)}`);
      } finally {
        closeSync(fd);
      }
    }
    this.#hidden.clear();
    this.#closed = [];
    rmSync(this.#record, { force: true });
    return problems;
  }
}

function open(path: string): string {
  return `others can write to ${path} meanwhile`;
}

function putBack(place: string, { uid, gid, mode }: Entry): void {
  chownSync(place, uid, gid);
  chmodSync(place, mode);
}

function stays({ path, uid, mode }: Entry, why: string): string {
  return `${path} stays root's alone, and was user ${uid}'s with mode ${mode.toString(8)}: ${why}`;
}

/**
 * Puts back what a program has left closed that was ended meanwhile. A directory of a sandbox may have
 * another path outside, or none.
 * @returns a sentence for each of which that is not possible
 */
export function openLeftClosed(record: string = RECORD): string[] {
  const text = readStateFile(record);
  if (text === undefined) return [];
  // Those below others first: nobody leads their paths elsewhere while those above are root's.
  const entries = recordSchema.parse(JSON.parse(text)).toReversed();
  const problems = entries.flatMap((entry) => {
    const stats = lstatSync(entry.path, { throwIfNoEntry: false });
    const isSame = stats !== undefined && String(stats.dev) === entry.dev && String(stats.ino) === entry.ino;
    if (!isSame) return [stays(entry, 'there is another one by this path')];
    // The program may have ended before it had closed this one.
    if (isRootsAlone(stats)) putBack(entry.path, entry);
    return [];
  });
  rmSync(record, { force: true });
  return problems;
}
