import { lstatSync, openSync, type Stats, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DirectoryIdentity, UnwrittenFile } from '../model/file.ts';
import {
  checkFileSystem,
  isSameInode,
  OldDirectories,
  type OldDirectory,
  WriteBackRefusal,
} from './old-directories.ts';
import { FOR_A_LOOK, makeFile, updateFile, type Written, withFile } from './old-file.ts';
import type { OldMemory } from './old-size.ts';
import type { FileProblem } from './prepare.ts';

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
  /** Why the disk does not have what it should; undefined if it has. */
  readonly problem?: string;
  /** A file that the disk did not know was made: the dead system's programs knew it by another inode. */
  readonly made?: DirectoryIdentity;
}

export interface WriteBackResult {
  /** Files that were written to, or made. */
  readonly written: readonly string[];
  readonly bytes: number;
  /** Files of which the disk does not have what it should: nothing was written to them, unless the problem says that writing failed. */
  readonly problems: readonly FileProblem[];
  /** By `inodeKey`. */
  readonly outcomes: ReadonlyMap<string, WriteBackOutcome>;
  /** Sentences for the report. */
  readonly notes: readonly string[];
}

const ANOTHER = 'is another file than before the panic; what was to be written to it is lost';
const NAME_MAX = 255;
const S_IFMT = 0o170000;

/** By what a file of the dead system is known. Numbers of inodes alone are not enough: the subvolumes of a btrfs share a device. */
export function inodeKey({ fileSystem, identity, path }: UnwrittenFile): string {
  return `${fileSystem.device}:${identity.inode}:${path}`;
}

/** What was done to a file and to names. */
interface Done extends Pick<WriteBackOutcome, 'made'> {
  /** Undefined if the disk had everything. */
  readonly bytes: Written;
  /** The path that the disk had for it. */
  readonly renamedFrom?: string;
  /** What the disk had under its name, an older file, has this path now. */
  readonly displacedTo?: string;
}

/** Whether what has a name on the disk is the file of then. */
function isTheFile(path: string, found: Stats, { identity }: UnwrittenFile): boolean {
  if ((found.mode & S_IFMT) !== (identity.mode & S_IFMT) || found.ino !== identity.inode) return false;
  return withFile(openSync(path, FOR_A_LOOK), (fd) => isSameInode(fd, identity));
}

/** The other name that the disk has for a file whose only name memory knows: it was renamed since. */
function oldNameOf(directory: OldDirectory, file: UnwrittenFile): string | undefined {
  if (file.links !== 1 || !directory.isOlderThan(file)) return undefined;
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

/** A file of which the disk knows neither this name nor what stands behind it. */
function placeMissing(directory: OldDirectory, name: string, file: UnwrittenFile, memory: OldMemory): Done {
  const oldName = oldNameOf(directory, file);
  if (oldName !== undefined) {
    checkFileSystem(directory.fd, file);
    directory.move(file.identity.inode, oldName, name);
    directory.sync();
    const bytes = updateFile(directory.pathOf(name), file, memory) ?? 0;
    return { bytes, renamedFrom: beside(file, oldName) };
  }
  if (file.links !== 1) throw new WriteBackRefusal('is not on the disk under this name, and has others');
  return makeFile(directory, name, file, memory);
}

/**
 * A file whose name another one has on the disk: it took the name's place so shortly before the panic that the journal did not have it. That
 * is believed if the disk's directory is older than memory's. The other file may be all that is left of something, and is kept.
 */
function placeInstead(
  directory: OldDirectory,
  name: string,
  found: Stats,
  file: UnwrittenFile,
  { memory, incident }: OldWorld,
): Done {
  if (file.links !== 1 || found.isDirectory() || !directory.isOlderThan(file)) {
    throw new WriteBackRefusal(ANOTHER);
  }
  checkFileSystem(directory.fd, file);
  const aside = nameAside(name, found, incident);
  const displacedTo = beside(file, aside);
  const oldName = oldNameOf(directory, file);
  if (oldName !== undefined) {
    directory.exchange(file.identity.inode, oldName, name);
    directory.move(found.ino, oldName, aside);
    directory.sync();
    const bytes = updateFile(directory.pathOf(name), file, memory) ?? 0;
    return { bytes, renamedFrom: beside(file, oldName), displacedTo };
  }
  const done = makeFile(directory, aside, file, memory);
  try {
    directory.exchange(found.ino, name, aside);
  } catch (error) {
    unlinkSync(directory.pathOf(aside));
    throw error;
  }
  directory.sync();
  return { ...done, displacedTo };
}

function writeOne(directories: OldDirectories, file: UnwrittenFile, world: OldWorld): Done {
  const { directory, name } = directories.parentOf(file);
  const path = directory.pathOf(name);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return placeMissing(directory, name, file, world.memory);
  if (isTheFile(path, found, file)) return { bytes: updateFile(path, file, world.memory) };
  return placeInstead(directory, name, found, file, world);
}

/**
 * Writes to the disks what the dead kernel had in memory only: data, sizes, times and names, in place. A file that is not certainly the one it
 * was, by its directories, file system, inode, owner and size, is left alone and reported.
 */
export function writeBack(files: Iterable<UnwrittenFile>, world: OldWorld): WriteBackResult {
  const written: string[] = [];
  const outcomes = new Map<string, WriteBackOutcome>();
  const problems: FileProblem[] = [];
  const notes: string[] = [];
  const displaced = new Map<string, string>();
  let bytes = 0;
  const directories = new OldDirectories(world.root ?? '/');
  for (const file of files) {
    const { path } = file;
    try {
      const done = writeOne(directories, file, world);
      bytes += done.bytes ?? 0;
      if (done.bytes !== undefined) written.push(path);
      if (done.displacedTo !== undefined) displaced.set(done.displacedTo, path);
      // That one was in the way only.
      if (done.renamedFrom !== undefined) displaced.delete(done.renamedFrom);
      outcomes.set(inodeKey(file), { made: done.made });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      const problem = error instanceof WriteBackRefusal ? text : `cannot be written: ${text}`;
      problems.push({ path, problem });
      notes.push(`${path} ${problem}`);
      outcomes.set(inodeKey(file), { problem });
    }
  }
  directories.close();
  for (const [aside, path] of displaced) {
    notes.push(`${path} had replaced another file, which the disk still had: that one is ${aside} now`);
  }
  return { written, bytes, problems, outcomes, notes };
}
