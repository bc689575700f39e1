import { lstatSync, openSync, type Stats, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DirectoryIdentity, UnwrittenFile } from '../../model/file.ts';
import { NAME_MAX } from '../../system/abi.ts';
import { typeOf } from '../../system/file-mode.ts';
import { inodeGeneration } from '../../system/inode-generation.ts';
import { messageOf } from '../../system/thrown.ts';
import { withFile } from '../files/with-file.ts';
import { isSameInode } from './identity.ts';
import { OldDirectories } from './old-directories.ts';
import type { OldDirectory } from './old-directory.ts';
import { disarmFile, FOR_A_LOOK, hasSameAccess, makeOldFile, updateFile, type Written } from './old-file.ts';
import { isInMemoryFrom, type OldMemory } from './old-size.ts';
import { WriteBackRefusal } from './refusal.ts';

/** Where the files of the dead system are, on the disks and in memory. */
export interface OldWorld {
  readonly memory: OldMemory;
  /** Whether the dead kernel knew something by a name in the directory of a file. */
  isNamed(file: UnwrittenFile, name: string): boolean;
  /** Names what is kept of files that had been replaced. */
  readonly incident: string;
  /** Where the old root file system is mounted; else `/`. */
  readonly root?: string;
}

/** What became of a file. */
export interface WriteBackOutcome {
  /**
   * Why the disk does not have what it should: then nothing was written to the file and its name is where it
   * was, unless the problem says that writing failed. Undefined if the disk has everything.
   */
  readonly problem?: string;
  /** Bytes that were written; undefined if the disk had everything. */
  readonly bytes?: Written;
  /** The file was made: the dead system's programs knew it by another inode. */
  readonly made?: DirectoryIdentity;
}

const ANOTHER = 'is another file than before the panic; what was to be written to it is lost';

/**
 * By what a file of the dead system is known. Numbers of inodes alone are not enough: the subvolumes of a
 * btrfs share a device.
 */
function inodeKey({ fileSystem, identity, path }: UnwrittenFile): string {
  return `${fileSystem.device}:${identity.inode}:${path}`;
}

/** Whether what has a name on the disk is the file of then. */
function isTheFile(path: string, found: Stats, { identity }: UnwrittenFile): boolean {
  if (typeOf(found.mode) !== typeOf(identity.mode) || found.ino !== identity.inode) return false;
  return withFile(openSync(path, FOR_A_LOOK), (fd) => isSameInode(fd, identity));
}

/**
 * Whether memory can be believed about the names of a file: it has one only, the disk has its directory as it
 * was some time before, and numbers of inodes mean something there, because generations tell when one is used
 * again.
 */
function mayBeMoved(directory: OldDirectory, file: UnwrittenFile): boolean {
  return (
    file.links === 1 &&
    directory.isOlderThan(file) &&
    file.identity.generation !== 0 &&
    inodeGeneration(directory.fd) !== undefined
  );
}

/**
 * The other name that the disk has for a file in its directory: it was renamed since. Undefined if there is
 * none, or if what is there would not be the file with what is in memory: it has other rights there, or ends
 * before what is in memory begins.
 */
function oldNameOf(directory: OldDirectory, file: UnwrittenFile): string | undefined {
  const name = directory.nameOf(file.identity.inode);
  if (name === undefined) return undefined;
  const path = directory.pathOf(name);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.nlink !== 1 || !isTheFile(path, found, file)) return undefined;
  if (found.size < file.identity.sizeBytes && !isInMemoryFrom(file, found.size)) return undefined;
  const isSame = withFile(openSync(path, FOR_A_LOOK), (fd) => hasSameAccess(fd, file));
  return isSame ? name : undefined;
}

/**
 * A name for what the disk had instead of a file: hidden, so that nothing takes it for one of a directory's
 * files.
 */
function nameAside(name: string, { ino }: Stats, incident: string): string {
  const aside = `.${name}.otherworld-${incident}`;
  return Buffer.byteLength(aside) <= NAME_MAX ? aside : `.otherworld-${incident}-${ino}`;
}

/** A path in the directory of a file. */
function beside({ path }: UnwrittenFile, name: string): string {
  return join(dirname(path), name);
}

/** What the disk had under the name of a file, and where that is now. */
interface Displaced {
  readonly file: UnwrittenFile;
  readonly aside: string;
}

/** Says of a file that its turn comes when all others had theirs. */
class Later extends Error {}

/** Made files that are named one by one. */
const MAX_NAMED = 10;

/**
 * Writes to the disks what the dead kernel had in memory only: data, sizes and times, in place, and names. A
 * file that is not certainly the one it was, by its directories, file system, inode, owner and size, is left
 * alone and reported.
 */
export class WriteBack {
  readonly #world: OldWorld;
  readonly #directories: OldDirectories;
  readonly #outcomes = new Map<string, WriteBackOutcome>();
  /** By path. */
  readonly #displaced = new Map<string, Displaced>();
  /** Files whose old name something else has in memory: by path, until it is their turn. */
  readonly #deferred = new Map<string, UnwrittenFile>();
  #made: string[] = [];
  #notes: string[] = [];

  constructor(world: OldWorld) {
    this.#world = world;
    this.#directories = new OldDirectories(world.root ?? '/');
  }

  /** What became of a file; undefined if it was not written back. */
  outcomeOf(file: UnwrittenFile): WriteBackOutcome | undefined {
    return this.#outcomes.get(inodeKey(file));
  }

  /**
   * Writes files back.
   * @param note takes sentences for the report
   */
  write(files: Iterable<UnwrittenFile>, note: (sentence: string) => void): void {
    try {
      for (const file of files) this.#attempt(file, false);
      for (const [path, file] of this.#deferred) {
        this.#attempt(file, true);
        this.#deferred.delete(path);
      }
    } finally {
      for (const sentence of [...this.#notes, ...this.#aboutMade(), ...this.#settle()]) note(sentence);
      this.#notes = [];
      this.#made = [];
      this.#deferred.clear();
      this.#displaced.clear();
      this.#directories.close();
    }
  }

  #attempt(file: UnwrittenFile, isLast: boolean): void {
    try {
      this.#outcomes.set(inodeKey(file), this.#writeOne(file, isLast));
    } catch (error) {
      if (error instanceof Later) {
        this.#deferred.set(file.path, file);
        return;
      }
      const text = messageOf(error);
      const problem = error instanceof WriteBackRefusal ? text : `cannot be written: ${text}`;
      this.#notes.push(`${file.path} ${problem}`);
      this.#outcomes.set(inodeKey(file), { problem });
    }
  }

  #writeOne(file: UnwrittenFile, isLast: boolean): WriteBackOutcome {
    const { directory, name } = this.#directories.parentOf(file);
    const path = directory.pathOf(name);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found !== undefined && isTheFile(path, found, file)) {
      return { bytes: updateFile(path, file, this.#world.memory) };
    }
    const isMovable = mayBeMoved(directory, file);
    if (found !== undefined && !(isMovable && found.isFile())) throw new WriteBackRefusal(ANOTHER);
    const oldName = isMovable ? oldNameOf(directory, file) : undefined;
    if (oldName !== undefined) this.#checkOldName(file, oldName, isLast);
    return found === undefined
      ? this.#placeMissing(directory, name, file, oldName)
      : this.#placeInstead(directory, name, found, file, oldName);
  }

  /**
   * What has the old name in memory must have been put there, or no file would be left under that name.
   * Throws a `Later` if that may still happen, a WriteBackRefusal if not.
   */
  #checkOldName(file: UnwrittenFile, oldName: string, isLast: boolean): void {
    const was = beside(file, oldName);
    if (this.#displaced.has(was) || !this.#world.isNamed(file, oldName)) return;
    if (!isLast) throw new Later();
    // One of those that have changed places.
    if (this.#deferred.has(was)) return;
    throw new WriteBackRefusal(
      `is ${was} on the disk, and stays there, because what had that name at the panic cannot be put there`,
    );
  }

  /** A file of which the disk does not know this name. */
  #placeMissing(
    directory: OldDirectory,
    name: string,
    file: UnwrittenFile,
    oldName: string | undefined,
  ): WriteBackOutcome {
    const { memory } = this.#world;
    if (oldName !== undefined) {
      const bytes = updateFile(directory.pathOf(oldName), file, memory) ?? 0;
      directory.move({ inode: file.identity.inode, name: oldName }, name);
      this.#wasRenamed(file, oldName);
      directory.sync();
      return { bytes };
    }
    if (file.links !== 1) throw new WriteBackRefusal('is not on the disk under this name, and has others');
    const made = makeOldFile(directory, name, file, memory, 'is not on the disk');
    this.#made.push(file.path);
    directory.sync();
    return made;
  }

  /**
   * A file whose name another one has on the disk: it took the name's place so shortly before the panic that
   * the journal did not have it. The other file may be all that is left of something, and is kept.
   */
  #placeInstead(
    directory: OldDirectory,
    name: string,
    found: Stats,
    file: UnwrittenFile,
    oldName: string | undefined,
  ): WriteBackOutcome {
    const { memory, incident } = this.#world;
    const aside = nameAside(name, found, incident);
    if (oldName !== undefined) {
      const bytes = updateFile(directory.pathOf(oldName), file, memory) ?? 0;
      directory.exchange({ inode: file.identity.inode, name: oldName }, { inode: found.ino, name });
      this.#wasRenamed(file, oldName);
      this.#wasDisplaced(file, oldName);
      directory.move({ inode: found.ino, name: oldName }, aside);
      this.#displaced.delete(beside(file, oldName));
      this.#wasDisplaced(file, aside);
      directory.sync();
      return { bytes };
    }
    const outcome = makeOldFile(directory, aside, file, memory, 'has another file in its place on the disk');
    try {
      directory.exchange({ inode: outcome.made.inode, name: aside }, { inode: found.ino, name });
    } catch (error) {
      unlinkSync(directory.pathOf(aside));
      throw error;
    }
    this.#made.push(file.path);
    this.#wasDisplaced(file, aside);
    directory.sync();
    return outcome;
  }

  #wasDisplaced(file: UnwrittenFile, aside: string): void {
    this.#displaced.set(beside(file, aside), { file, aside });
  }

  #wasRenamed(file: UnwrittenFile, oldName: string): void {
    const was = beside(file, oldName);
    const onDisk = this.#displaced.get(was)?.file.path ?? was;
    this.#displaced.delete(was);
    this.#notes.push(`${file.path} was ${onDisk} on the disk, and was renamed shortly before the panic`);
  }

  #aboutMade(): string[] {
    const count = this.#made.length;
    if (count === 0) return [];
    const named = this.#made.slice(0, MAX_NAMED).join(', ');
    const more = count > MAX_NAMED ? ` and ${count - MAX_NAMED} more` : '';
    return [`files that the disk did not have are made anew, without extended attributes: ${named}${more}`];
  }

  /**
   * What is said of the files that nobody has claimed, after taking away the rights that must not outlive
   * their replacement.
   */
  *#settle(): Generator<string> {
    for (const [path, { file, aside }] of this.#displaced) {
      yield `what the disk had as ${file.path} is ${path} now: it was replaced, or had got another name, shortly before the panic`;
      try {
        const done = disarmFile(this.#directories.parentOf(file).directory.pathOf(aside));
        if (done === 'disarmed')
          yield `${path} is no set-user-ID program any more, and has no file capabilities`;
        if (done === 'has other names')
          yield `${path} is a set-user-ID program or has file capabilities, as have its other names`;
      } catch (error) {
        yield `${path} may still be a set-user-ID program: ${messageOf(error)}`;
      }
    }
  }
}
