import { type BigIntStats, closeSync, constants, lstatSync, openSync } from 'node:fs';
import type { GroupFiles, OpenFile } from '../../model/file.ts';
import type { PathFile } from '../../model/open-file.ts';
import { inodeGeneration } from '../../system/inode-generation.ts';
import { messageOf } from '../../system/thrown.ts';

/**
 * What was at a path when a group's files were checked; by this it is known again in the restored process.
 */
export interface FoundFile {
  readonly stats: BigIntStats;
  /** Of a regular file on a disk; undefined where there is none. */
  readonly generation: number | undefined;
}

/** By path. */
export type FoundFiles = ReadonlyMap<string, FoundFile>;

/** What a file is looked for by. */
export interface NamedPath extends Pick<PathFile, 'path' | 'identity'> {
  readonly ghostId?: number | undefined;
  readonly isOwnMake?: true;
}

/** The path by which an open file is opened again; undefined if it has none. */
export function pathOf(file: OpenFile): NamedPath | undefined {
  const named = file.type === 'fifo' ? file.pathFile : file;
  return named.type === 'path' ? named : undefined;
}

/**
 * File systems whose inodes are numbered once and for all while they are mounted; those of /proc/sys are not.
 */
export function hasLastingInodes({ identity }: Pick<NamedPath, 'identity'>): boolean {
  return identity.onDisk || ['tmpfs', 'ramfs', 'devtmpfs'].includes(identity.fileSystem);
}

/** The generation of a regular file on a disk. Throws the file system's error. */
export function generationOf(
  path: string,
  stats: BigIntStats,
  { identity }: Pick<NamedPath, 'identity'>,
): number | undefined {
  if (!identity.onDisk || !stats.isFile()) return undefined;
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    return inodeGeneration(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Notes what is at the paths of a group's files now. To be called when they are made and checked, before any
 * process of the dead world runs: what is opened by a path later has to be the same. What is not there,
 * because the restore itself makes it, is not noted.
 * @returns a sentence for each file that cannot be looked at
 */
export function noteFound({ files }: Pick<GroupFiles, 'files'>, found: Map<string, FoundFile>): string[] {
  return notePaths(
    files.flatMap((file) => pathOf(file) ?? []),
    found,
  );
}

/** The same for files of which no more is known; deleted ones are left out. */
export function notePaths(files: readonly NamedPath[], found: Map<string, FoundFile>): string[] {
  return files.flatMap((file) => {
    if (found.has(file.path) || file.ghostId !== undefined) return [];
    try {
      const stats = lstatSync(file.path, { bigint: true, throwIfNoEntry: false });
      if (stats !== undefined)
        found.set(file.path, { stats, generation: generationOf(file.path, stats, file) });
      return [];
    } catch (error) {
      return [`${file.path} cannot be looked at: ${messageOf(error)}`];
    }
  });
}
