import { lstatSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { captureMemoryFiles, type PidFile } from '../capture/memory-files.ts';
import type { Config } from '../config/schema.ts';
import { type Preparation, readPreparation, writePreparation } from '../criu/files/preparation.ts';
import { ImageDirectory } from '../criu/image.ts';
import type { MemoryFiles } from '../model/file.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Report } from '../report/schema.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { makeDirectory, makeFile, makeName, makeSymlink } from './make-files.ts';
import { tmpfsPoints } from './mounts.ts';
import { messageOf } from './stages.ts';

/** Files on tmpfs, between the dead kernel's memory and the new one's. */
export interface SavedMemoryFiles {
  readonly directory: string;
  readonly pidFiles: readonly PidFile[];
}

/** More files than these that did not come back are counted, not named. */
const NAMED_PROBLEMS = 20;

/**
 * Writes everything that is on the dead world's tmpfs mounts, but for what groups make themselves, into the directory of the
 * images. What cannot be read is noted; throws if it cannot be written, and leaves nothing behind then.
 */
export function saveMemoryFiles(
  kernel: Kernel,
  groups: readonly ProcessGroup[],
  images: string,
  report: Report,
): SavedMemoryFiles {
  const pids = new Set(groups.flatMap(({ processes }) => processes.map(({ pid }) => pid)));
  const { points, mountpoints } = tmpfsPoints(kernel);
  const { files, pidFiles, problems } = captureMemoryFiles(kernel, points, mountpoints, pids);
  noteProblems(problems, report);
  const directory = join(images, 'tmpfs');
  try {
    const destination = new ImageDirectory(directory);
    writePreparation(withoutThoseOf(groups, files), destination, kernel.physical);
    destination.close();
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw new Error(`the files on tmpfs could not be saved: ${messageOf(error)}`, { cause: error });
  }
  return { directory, pidFiles };
}

function withoutThoseOf(groups: readonly ProcessGroup[], files: MemoryFiles): MemoryFiles {
  const made = new Set(groups.flatMap((group) => group.files.filesToMake.map(({ path }) => path)));
  return { ...files, filesToMake: files.filesToMake.filter(({ path }) => !made.has(path)) };
}

type Notes = Pick<Report, 'notes'>;

function noteProblems(problems: readonly string[], report: Notes): void {
  report.notes.push(...problems.slice(0, NAMED_PROBLEMS).map((problem) => `lost from tmpfs: ${problem}`));
  const more = problems.length - NAMED_PROBLEMS;
  if (more > 0) report.notes.push(`lost from tmpfs: ${more} more files`);
}

/**
 * Makes again what `saveMemoryFiles` wrote, where groups have not made it already. What cannot be made, or needs more memory than
 * is left, is noted, and the saved directory stays.
 * @param availableBytes what files may take
 */
export function makeMemoryFiles(
  { directory }: SavedMemoryFiles,
  availableBytes: number,
  keep: Config['images']['keep'],
  report: Notes,
): void {
  const { directories, files, symlinks, names } = readPreparation(directory);
  const problems: string[] = [];
  const attempt = (path: string, step: () => void): void => {
    try {
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) step();
    } catch (error) {
      problems.push(`${path}: ${messageOf(error)}`);
    }
  };
  for (const one of directories) attempt(one.path, () => makeDirectory(one));
  let left = availableBytes;
  for (const file of files) {
    attempt(file.path, () => {
      const bytes = contentBytes(file);
      if (bytes > left) throw new Error(`its ${bytes} bytes do not fit into the memory that is left`);
      makeFile(directory, file);
      left -= bytes;
    });
  }
  for (const one of symlinks) attempt(one.path, () => makeSymlink(one));
  for (const one of names) attempt(one.path, () => makeName(one));
  noteProblems(problems, report);
  if (problems.length === 0 ? keep === 'always' : keep !== 'never') {
    if (problems.length > 0) report.notes.push(`what did not come back of tmpfs is in ${directory}`);
    return;
  }
  rmSync(directory, { recursive: true, force: true });
}

function contentBytes({ chunks }: Preparation['files'][number]): number {
  return chunks.reduce((sum, { length }) => sum + length, 0);
}

/** Removes the files that name processes which did not come back after all: their number will be another's. */
export function removePidFiles({ pidFiles }: SavedMemoryFiles, running: ReadonlySet<number>): void {
  for (const { path, pid } of pidFiles) {
    if (!running.has(pid)) rmSync(path, { force: true });
  }
}
