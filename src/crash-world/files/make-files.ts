import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  type Stats,
  statfsSync,
  symlinkSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { contentPath, copyChunks, openImage, type Preparation } from '../../criu/restore/index.ts';
import { makeFifo, O_PATH } from '../../system/file-calls.ts';
import { fileType, permissionsOf, typeOf } from '../../system/file-mode.ts';
import { RAMFS_MAGIC, TMPFS_MAGIC } from '../../system/file-systems.ts';
import { codeOf } from '../../system/thrown.ts';
import { aboutAttribute, removeInherited, setAttribute } from '../../system/xattr.ts';

type ToMake = Preparation['files'][number];

/** Sets extended attributes, ACLs among them. Throws an Error with the name of one that cannot be set. */
function setAttributes(path: string, attributes: Preparation['files'][number]['attributes']): void {
  for (const { name, value } of attributes) {
    aboutAttribute(name, () => setAttribute(path, name, Buffer.from(value, 'base64')));
  }
}

const memoryFileSystems: readonly number[] = [TMPFS_MAGIC, RAMFS_MAGIC];

const DIRECTORY = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** Opens the directory above a path. Throws an Error if a component of it is a symbolic link. */
export function openParent(path: string): number {
  const parent = dirname(path);
  let fd = openSync('/', DIRECTORY);
  for (const name of parent.split('/').filter(Boolean)) {
    const above = fd;
    try {
      fd = openSync(`/proc/self/fd/${above}/${name}`, DIRECTORY);
    } catch (error) {
      if (codeOf(error) !== 'ENOTDIR' && codeOf(error) !== 'ELOOP') throw error;
      throw new Error(`${parent} is behind a symbolic link`, { cause: error });
    } finally {
      closeSync(above);
    }
  }
  return fd;
}

/**
 * Makes something. `make` gets a path that leads there whatever others do to the directories above it
 * meanwhile: processes that own them may run. Throws an Error if it would land on a disk, because a mount is
 * missing, or behind a symbolic link: it went with a memory file system, and its path has no link in it.
 */
function inParent(path: string, make: (place: string) => void): void {
  const parent = openParent(path);
  try {
    if (!memoryFileSystems.includes(statfsSync(`/proc/self/fd/${parent}`).type >>> 0)) {
      throw new Error(`${dirname(path)} is on a disk and was in memory: a mount is missing`);
    }
    make(`/proc/self/fd/${parent}/${basename(path)}`);
  } finally {
    closeSync(parent);
  }
}

/** Who something belongs to, and who may use it. */
type Owner = Pick<Directory, 'uid' | 'gid' | 'mode'>;

/**
 * Gives something its owner and mode. Throws an Error if somebody has put another thing there: `isMine` says
 * of what is there whether it is still the one.
 */
function own(place: string, { uid, gid, mode }: Owner, isMine: (stats: Stats) => boolean): void {
  const fd = openSync(place, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!isMine(fstatSync(fd))) throw new Error('it is another file already');
    chownSync(`/proc/self/fd/${fd}`, uid, gid);
    chmodSync(`/proc/self/fd/${fd}`, mode);
  } finally {
    closeSync(fd);
  }
}

type Directory = Preparation['directories'][number];

/** Makes a directory, unless it is there. Throws an Error if it cannot be made where it was. */
export function makeDirectory(directory: Directory): void {
  if (existsSync(directory.path)) return;
  inParent(directory.path, (place) => {
    mkdirSync(place);
    apply(place, directory);
  });
}

/** Gives a directory its owner, mode and attributes. Throws an Error if it is not where it was. */
export function applyDirectory(directory: Directory): void {
  inParent(directory.path, (place) => apply(place, directory));
}

function apply(place: string, { mode, uid, gid, attributes }: Directory): void {
  removeInherited(place);
  own(place, { uid, gid, mode }, (stats) => stats.isDirectory());
  setAttributes(place, attributes);
}

/** Throws what the disk has said of an open image of which all that is wanted was read. */
export type LookAtImage = (fd: number) => void;

/**
 * Makes a regular file or FIFO of which there is none yet. Throws an Error if it cannot be made where it was,
 * and what `look` throws; then it is not there.
 */
export function makeFile(directory: string, file: ToMake, look: LookAtImage = () => undefined): void {
  inParent(file.path, (place) => {
    if (typeOf(file.identity.mode) !== fileType.fifo) {
      makeRegular(directory, place, file, look);
      // It is ours alone so far.
      const uid = process.getuid?.();
      finish(place, file, (stats) => stats.isFile() && stats.uid === uid && stats.nlink === 1);
      return;
    }
    if (!existsSync(place)) makeFifo(place, 0o600);
    finish(place, file, (stats) => stats.isFIFO());
  });
}

function makeRegular(directory: string, place: string, file: ToMake, look: LookAtImage): void {
  const from = openImage(contentPath(directory));
  const to = openSync(place, 'wx', 0o600);
  try {
    copyChunks(from, to, file);
    look(from);
    ftruncateSync(to, file.identity.sizeBytes);
  } catch (error) {
    rmSync(place);
    throw error;
  } finally {
    closeSync(to);
    closeSync(from);
  }
}

function finish(place: string, file: ToMake, isMine: (stats: Stats) => boolean): void {
  const { mode, uid, gid } = file.identity;
  removeInherited(place);
  own(place, { uid, gid, mode: permissionsOf(mode) }, isMine);
  setAttributes(place, file.attributes);
  lutimesSync(place, file.accessedMicroseconds / 1e6, file.modifiedMicroseconds / 1e6);
}

/** Makes a symbolic link. Throws an Error if it is there, or cannot be made where it was. */
export function makeSymlink({ path, target, uid, gid }: Preparation['symlinks'][number]): void {
  inParent(path, (place) => {
    symlinkSync(target, place);
    lchownSync(place, uid, gid);
  });
}

/** Gives a file another name. Throws an Error if that is there, or the file is not. */
export function makeName({ path, of }: Preparation['names'][number]): void {
  inParent(path, (place) => linkSync(of, place));
}
