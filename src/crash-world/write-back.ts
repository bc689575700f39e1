import { lstatSync, openSync, type Stats, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DirectoryIdentity, UnwrittenFile } from '../model/file.ts';
import { inodeGeneration } from './inode-generation.ts';
import { isSameInode, OldDirectories, type OldDirectory, WriteBackRefusal } from './old-directories.ts';
import { disarmFile, FOR_A_LOOK, makeFile, updateFile, type Written } from './old-file.ts';
import type { OldMemory } from './old-size.ts';
import { withFile } from './with-file.ts';

/** Where the files of the dead system are, on the disks and in memory. */
export interface OldWorld {
  readonly memory: OldMemory;
  /** Names what is kept of files that had been replaced. */
  readonly incident: string;
  /** Where the old root file system is mounted; else `/`. */
  readonly root?: string;
}

/** What became of a file. */
export interface WriteBackOutcome {
  /**
   * Why the disk does not have what it should: then nothing was written to the file and its name is where it was, unless the problem says that
   * writing failed. Undefined if the disk has everything.
   */
  readonly problem?: string;
  /** Bytes that were written; undefined if the disk had everything. */
  readonly bytes?: Written;
  /** The file was made: the dead system's programs knew it by another inode. */
  readonly made?: DirectoryIdentity;
}

const ANOTHER = 'is another file than before the panic; what was to be written to it is lost';
const NAME_MAX = 255;
const S_IFMT = 0o170000;

/** By what a file of the dead system is known. Numbers of inodes alone are not enough: the subvolumes of a btrfs share a device. */
export function inodeKey({ fileSystem, identity, path }: UnwrittenFile): string {
  return `${fileSystem.device}:${identity.inode}:${path}`;
}

/** Whether what has a name on the disk is the file of then. */
function isTheFile(path: string, found: Stats, { identity }: UnwrittenFile): boolean {
  if ((found.mode & S_IFMT) !== (identity.mode & S_IFMT) || found.ino !== identity.inode) return false;
  return withFile(openSync(path, FOR_A_LOOK), (fd) => isSameInode(fd, identity));
}

/**
 * Whether memory can be believed about the names of a file: it has one only, the disk has its directory as it was some time before, and
 * numbers of inodes mean something there, because generations tell when one is used again.
 */
function mayBeMoved(directory: OldDirectory, file: UnwrittenFile): boolean {
  return (
    file.links === 1 &&
    directory.isOlderThan(file) &&
    file.identity.generation !== 0 &&
    inodeGeneration(directory.fd) !== undefined
  );
}

/** The other name that the disk has for a file in its directory: it was renamed since. */
function oldNameOf(directory: OldDirectory, file: UnwrittenFile): string | undefined {
  const name = directory.nameOf(file.identity.inode);
  if (name === undefined) return undefined;
  const path = directory.pathOf(name);
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.nlink === 1 && isTheFile(path, found, file) ? name : undefined;
}

/** A name for what the disk had instead of a file: hidden, so that nothing takes it for one of a directory's files. */
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

/**
 * Writes to the disks what the dead kernel had in memory only: data, sizes, times and names, in place. A file that is not certainly the one it
 * was, by its directories, file system, inode, owner and size, is left alone and reported.
 */
export class WriteBack {
  readonly #world: OldWorld;
  readonly #directories: OldDirectories;
  readonly #outcomes = new Map<string, WriteBackOutcome>();
  /** By path. */
  readonly #displaced = new Map<string, Displaced>();
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
      for (const file of files) this.#outcomes.set(inodeKey(file), this.#attempt(file));
    } finally {
      for (const sentence of [...this.#notes, ...this.#settle()]) note(sentence);
      this.#notes = [];
      this.#directories.close();
    }
  }

  #attempt(file: UnwrittenFile): WriteBackOutcome {
    try {
      return this.#writeOne(file);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      const problem = error instanceof WriteBackRefusal ? text : `cannot be written: ${text}`;
      this.#notes.push(`${file.path} ${problem}`);
      return { problem };
    }
  }

  #writeOne(file: UnwrittenFile): WriteBackOutcome {
    const { directory, name } = this.#directories.parentOf(file);
    const path = directory.pathOf(name);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined) return this.#placeMissing(directory, name, file);
    if (isTheFile(path, found, file)) return { bytes: updateFile(path, file, this.#world.memory) };
    return this.#placeInstead(directory, name, found, file);
  }

  /** A file of which the disk does not know this name. */
  #placeMissing(directory: OldDirectory, name: string, file: UnwrittenFile): WriteBackOutcome {
    const { memory } = this.#world;
    const oldName = mayBeMoved(directory, file) ? oldNameOf(directory, file) : undefined;
    if (oldName !== undefined) {
      const bytes = updateFile(directory.pathOf(oldName), file, memory) ?? 0;
      directory.move({ inode: file.identity.inode, name: oldName }, name);
      this.#wasRenamed(file, oldName);
      directory.sync();
      return { bytes };
    }
    if (file.links !== 1) throw new WriteBackRefusal('is not on the disk under this name, and has others');
    const made = makeFile(directory, name, file, memory);
    directory.sync();
    return made;
  }

  /**
   * A file whose name another one has on the disk: it took the name's place so shortly before the panic that the journal did not have it. The
   * other file may be all that is left of something, and is kept.
   */
  #placeInstead(directory: OldDirectory, name: string, found: Stats, file: UnwrittenFile): WriteBackOutcome {
    if (!found.isFile() || !mayBeMoved(directory, file)) throw new WriteBackRefusal(ANOTHER);
    const { memory, incident } = this.#world;
    const aside = nameAside(name, found, incident);
    const oldName = oldNameOf(directory, file);
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
    const outcome = makeFile(directory, aside, file, memory);
    try {
      directory.exchange({ inode: outcome.made.inode, name: aside }, { inode: found.ino, name });
    } catch (error) {
      unlinkSync(directory.pathOf(aside));
      throw error;
    }
    this.#wasDisplaced(file, aside);
    directory.sync();
    return outcome;
  }

  #wasDisplaced(file: UnwrittenFile, aside: string): void {
    this.#displaced.set(beside(file, aside), { file, aside });
  }

  #wasRenamed(file: UnwrittenFile, oldName: string): void {
    const was = beside(file, oldName);
    // It had only been in the way of another one.
    if (this.#displaced.delete(was)) return;
    this.#notes.push(`${file.path} was ${was} on the disk, and was renamed shortly before the panic`);
  }

  /** What is said of the files that nobody has claimed, after taking away what must not outlive their replacement. */
  *#settle(): Generator<string> {
    for (const [path, { file, aside }] of this.#displaced) {
      yield `what the disk had as ${file.path} is ${path} now: it was replaced, or had got another name, shortly before the panic`;
      try {
        if (disarmFile(this.#directories.parentOf(file).directory.pathOf(aside))) {
          yield `${path} is no set-user-ID program any more, and has no file capabilities`;
        }
      } catch (error) {
        yield `${path} may still be a set-user-ID program: ${error instanceof Error ? error.message : error}`;
      }
    }
    this.#displaced.clear();
  }
}
