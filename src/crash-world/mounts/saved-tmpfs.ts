import { lstatSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { captureTmpfs, type PidFile } from '../../capture/tmpfs-files.ts';
import type { Config } from '../../config/schema.ts';
import { ImageDirectory, writePreparation } from '../../criu/images/index.ts';
import { type Preparation, readPreparation, writeBackProblems } from '../../criu/restore/index.ts';
import type { ExtendedAttribute, FileToMake, TmpfsFiles } from '../../model/file.ts';
import type { ProcessGroup } from '../../model/group.ts';
import { type ImagesRoom, imagesRoom } from '../../report/images-room.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { PAGE_SIZE, pageEnd } from '../../system/page.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { contentOf } from '../../vmcore/stored-pages.ts';
import { applyDirectory, makeDirectory, makeFile, makeName, makeSymlink } from '../files/make-files.ts';
import { mountedPaths, tmpfsPoints } from './mounts.ts';

/** Files on tmpfs, between the dead kernel's memory and the new one's. */
export interface SavedTmpfs {
  readonly directory: string;
  readonly pidFiles: readonly PidFile[];
}

type Notes = Pick<IncidentReport, 'notes'>;

/** Memory that a name takes: inode and dentry, generously. */
const NAME_BYTES = 2048;
/** More files than these that did not come back are counted, not named. */
const NAMED_PROBLEMS = 20;

/**
 * Writes what is on the dead world's tmpfs mounts, but for what groups make themselves, into the directory of
 * the images. What cannot be read, or is more than the configuration allows or there is room for, is noted;
 * throws if it cannot be written, and leaves nothing behind then.
 */
export function saveTmpfs(
  kernel: Kernel,
  groups: readonly ProcessGroup[],
  images: string,
  limits: Config['tmpfs'],
  report: Notes,
): SavedTmpfs {
  const pids = new Set(groups.flatMap(({ processes }) => processes.map(({ pid }) => pid)));
  const { points, mounts } = tmpfsPoints(kernel);
  const { files, pidFiles, problems } = captureTmpfs(kernel, points, mounts, pids);
  const limited = withinLimit(withoutThoseOf(groups, files), limits['max-mebibytes'], imagesRoom(images));
  noteProblems([...problems, ...limited.problems], report);
  const directory = join(images, 'tmpfs');
  try {
    const destination = new ImageDirectory(directory);
    writePreparation(limited.files, destination, contentOf(kernel));
    destination.close();
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw new Error(`the files on tmpfs could not be saved: ${messageWithCauses(error)}`, { cause: error });
  }
  return { directory, pidFiles };
}

/**
 * A path alone says nothing: in a sandbox it leads to another file. Each tmpfs numbers its inodes from the
 * same number on, but their generations are random (`shmem_get_inode`, mm/shmem.c).
 */
export function withoutThoseOf(
  groups: readonly { readonly files: Pick<ProcessGroup['files'], 'filesToMake'> }[],
  files: TmpfsFiles,
): TmpfsFiles {
  const keyOf = ({ path, identity }: FileToMake): string =>
    `${identity.inode} ${identity.generation} ${path}`;
  const made = new Set(groups.flatMap((group) => group.files.filesToMake.map(keyOf)));
  return { ...files, filesToMake: files.filesToMake.filter((file) => !made.has(keyOf(file))) };
}

/** Pages that a file holds, in bytes: holes take nothing. */
export function contentBytes({ runs }: FileToMake): number {
  return runs.pages * PAGE_SIZE;
}

/** Of `preparation.json`, with numbers at their longest and the words around them. */
const ENTRY_BYTES = 640;
const ATTRIBUTE_BYTES = 48;

/** What is written of a file besides its content, at most; and of a directory or another name. */
function entryBytes(one: {
  readonly path: string;
  readonly attributes?: readonly ExtendedAttribute[];
}): number {
  const { path, attributes = [], ...others } = one;
  const second = 'target' in others ? others.target : 'of' in others ? others.of : '';
  return attributes.reduce(
    (sum, { name, value }) => sum + ATTRIBUTE_BYTES + jsonBytes(name) + 4 * Math.ceil(value.length / 3),
    ENTRY_BYTES + jsonBytes(path) + jsonBytes(String(second)),
  );
}

function jsonBytes(text: string): number {
  return Buffer.byteLength(JSON.stringify(text));
}

/** What `preparation.json` takes of these, at most. */
export function preparationBytes({
  directoriesToMake,
  filesToMake,
  symlinksToMake,
  namesToMake,
}: TmpfsFiles): number {
  const all = [...directoriesToMake, ...filesToMake, ...symlinksToMake, ...namesToMake];
  return all.reduce((sum, one) => sum + entryBytes(one), 0);
}

/**
 * The smallest files first, so that as many as possible are kept; before them what has no content:
 * directories and other names.
 * @param room what the images have left free
 */
export function withinLimit(
  files: TmpfsFiles,
  maxMebibytes: number,
  { bytesForImages, directory }: Pick<ImagesRoom, 'bytesForImages' | 'directory'>,
): { files: TmpfsFiles; problems: string[] } {
  const allowed = maxMebibytes * 2 ** 20;
  let kept = 0;
  let written = preparationBytes({ ...files, filesToMake: [] });
  const problems: string[] = [];
  if (written > bytesForImages) {
    const count = files.directoriesToMake.length + files.symlinksToMake.length + files.namesToMake.length;
    const all = `${count} directories and names, and ${files.filesToMake.length} files`;
    const none = { directoriesToMake: [], filesToMake: [], symlinksToMake: [], namesToMake: [] };
    return { files: none, problems: [`${all}: no room for them in ${directory}`] };
  }
  const filesToMake = files.filesToMake
    .toSorted((a, b) => contentBytes(a) - contentBytes(b))
    .filter((file) => {
      kept += contentBytes(file);
      written += contentBytes(file) + entryBytes(file);
      if (kept > allowed) {
        problems.push(`${file.path}: more than tmpfs.max-mebibytes (${maxMebibytes}) in all`);
      } else if (written > bytesForImages) {
        problems.push(`${file.path}: no room for it in ${directory}`);
      } else return true;
      return false;
    });
  return { files: { ...files, filesToMake }, problems };
}

function noteProblems(problems: readonly string[], report: Notes): void {
  report.notes.push(...problems.slice(0, NAMED_PROBLEMS).map((problem) => `lost from tmpfs: ${problem}`));
  const more = problems.length - NAMED_PROBLEMS;
  if (more > 0) report.notes.push(`lost from tmpfs: ${more} more files`);
}

/**
 * Makes again what `saveTmpfs` wrote, before any group makes its own files or any process runs. What cannot
 * be made, or needs more memory than is left, is noted, and the saved directory stays.
 * @param availableBytes what the files may take
 */
export function makeTmpfs(
  { directory }: Pick<SavedTmpfs, 'directory'>,
  availableBytes: number,
  keep: Config['images']['keep'],
  report: Notes,
): void {
  const { directories, files, symlinks, names } = readPreparation(directory);
  const problems: string[] = [];
  const attempt = (path: string, step: () => void): void => {
    try {
      step();
    } catch (error) {
      problems.push(`${path}: ${messageWithCauses(error)}`);
    }
  };
  let left = availableBytes;
  const make = (path: string, bytes: number, step: () => void): void =>
    attempt(path, () => {
      if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) throw new Error('is there already');
      if (bytes > left) throw new Error(`its ${bytes} bytes do not fit into the memory that is left`);
      step();
      left -= bytes;
    });
  const mounted = mountedPaths();
  for (const one of directories) {
    const isThere = lstatSync(one.path, { throwIfNoEntry: false })?.isDirectory() === true;
    if (!isThere) make(one.path, NAME_BYTES, () => makeDirectory(one));
    // One that a mount needed above it is there, but not as it was. What is mounted has an owner and a mode
    // of its own.
    else if (!mounted.has(one.path)) attempt(one.path, () => applyDirectory(one));
  }
  for (const file of files) make(file.path, memoryOf(file), () => makeFile(directory, file));
  for (const one of symlinks) make(one.path, NAME_BYTES, () => makeSymlink(one));
  for (const one of names) make(one.path, NAME_BYTES, () => makeName(one));
  problems.unshift(...writeBackProblems(directory));
  noteProblems(problems, report);
  if (problems.length === 0 ? keep === 'always' : keep !== 'never') {
    if (problems.length > 0) report.notes.push(`what did not come back of tmpfs is in ${directory}`);
    return;
  }
  rmSync(directory, { recursive: true, force: true });
}

function memoryOf({ chunks }: Preparation['files'][number]): number {
  return chunks.reduce((sum, { length }) => sum + pageEnd(length), NAME_BYTES);
}

/**
 * Names the PID files of processes that did not come back after all. They are not removed: other processes
 * run by now, and what root removes behind their backs could be another file.
 */
export function noteStalePidFiles(
  { pidFiles }: Pick<SavedTmpfs, 'pidFiles'>,
  running: ReadonlySet<number>,
  report: Notes,
): void {
  const stale = pidFiles.filter(({ pid }) => !running.has(pid));
  report.notes.push(...stale.map(({ path, pid }) => `${path} names process ${pid}, which did not come back`));
}
