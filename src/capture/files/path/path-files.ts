import type { Inode } from '../../../linux/fs.ts';
import { isWritten } from '../../../linux/writeback.ts';
import type {
  DirectoryToMake,
  FileToCheck,
  FileToMake,
  GhostFile,
  UnwrittenFile,
} from '../../../model/file.ts';
import { readable, VmcoreError } from '../../../vmcore/errors.ts';
import { unwrittenFile } from '../content/write-back.ts';
import type { CaptureContext } from '../context.ts';
import type { GroupSelection } from '../kind.ts';
import { FileRefusal } from '../refusal.ts';

/** What is needed of the paths of one mount namespace before files can be opened by them. */
export class PathFiles {
  /** By the address of the inode, so that two opens of a deleted file are one ghost. */
  readonly ghosts = new Map<bigint, GhostFile>();
  /** Files of memory file systems by their path, and the directories above a path. */
  readonly toMake = new Map<string, FileToMake>();
  readonly directories = new Map<string, readonly DirectoryToMake[]>();
  /** Inodes of the files on disks, by path. */
  readonly inodesOnDisk = new Map<string, Inode>();
}

/** A path leads to another file in each mount namespace. */
class Namespaces {
  readonly byAddress = new Map<bigint, PathFiles>();
}

/** What is needed of the paths of a mount namespace. */
export function pathFilesOf(context: CaptureContext, namespace: bigint): PathFiles {
  const { byAddress } = context.of(Namespaces);
  const known = byAddress.get(namespace);
  if (known !== undefined) return known;
  const files = new PathFiles();
  byAddress.set(namespace, files);
  return files;
}

function ofGroup({ context, namespace }: GroupSelection): PathFiles {
  return pathFilesOf(context, namespace);
}

function byPath<T extends { readonly path: string }>(items: readonly T[]): T[] {
  return [...new Map(items.map((item) => [item.path, item])).values()];
}

/** Paths of a group that lead to a file. */
function present({ pathFiles }: GroupSelection): GroupSelection['pathFiles'] {
  return pathFiles.filter(({ ghostId }) => ghostId === undefined);
}

export function ghostsOf(group: GroupSelection): GhostFile[] {
  const ids = new Set(group.pathFiles.map(({ ghostId }) => ghostId));
  return [...ofGroup(group).ghosts.values()].filter(({ id }) => ids.has(id));
}

export function directoriesOf(group: GroupSelection): DirectoryToMake[] {
  const { directories } = ofGroup(group);
  const needed = byPath(group.paths.flatMap((path) => directories.get(path) ?? []));
  return needed.toSorted((a, b) => a.path.length - b.path.length);
}

export function filesToMakeOf(group: GroupSelection): FileToMake[] {
  const { toMake } = ofGroup(group);
  return byPath(present(group).flatMap(({ path }) => toMake.get(path) ?? []));
}

/** Whether a file that is on no disk exists before the restore: not those that it makes itself. */
function isThereBefore({ toMake, directories }: PathFiles, path: string, fileSystem: string): boolean {
  if (fileSystem === 'devpts' || /^\/proc\/\d+(\/|$)/.test(path)) return false;
  const made = toMake.has(path) || directories.get(path)?.some((made) => made.path === path);
  return made !== true;
}

export function filesToCheckOf(group: GroupSelection): FileToCheck[] {
  const files = ofGroup(group);
  const checked = present(group).filter(
    ({ path, identity }) => identity.onDisk || isThereBefore(files, path, identity.fileSystem),
  );
  return byPath(checked.map(({ path, identity }) => ({ path, identity })));
}

/** Throws a FileRefusal: see `unwrittenAt`. */
export function unwrittenOf(group: GroupSelection): UnwrittenFile[] {
  return byPath(present(group).flatMap(({ path }) => unwrittenAt(group, path) ?? []));
}

/**
 * What of a file may be missing on its disk. Throws a FileRefusal if that cannot be told of a file that the
 * kernel had not written: what comes back would find an older content.
 */
function unwrittenAt(group: GroupSelection, path: string): UnwrittenFile | undefined {
  const { kernel, clocks } = group.context;
  const inode = ofGroup(group).inodesOnDisk.get(path);
  if (inode === undefined) return undefined;
  let problem: string;
  try {
    const file = unwrittenFile(kernel, inode, clocks);
    if (typeof file !== 'string') return file;
    problem = file;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    problem = error.message;
  }
  if (readable(() => isWritten(kernel, inode.address)) === true) return undefined;
  throw new FileRefusal(`uses ${path}, of which the disk may not have all: ${problem}`);
}
