import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  realpathSync,
  rmSync,
  statfsSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { contentPath, openImage, type Preparation } from '../criu/restore/index.ts';
import { makeFifo } from '../system/file-calls.ts';
import { fileType, permissionsOf, typeOf } from '../system/file-mode.ts';
import { RAMFS_MAGIC, TMPFS_MAGIC } from '../system/file-systems.ts';
import { messageOf } from '../system/thrown.ts';
import { removeAttribute, setAttribute } from '../system/xattr.ts';

/** Bytes that are copied at a time. */
const BLOCK = 1 << 20;

type ToMake = Preparation['files'][number];

/** What a new file gets from a default ACL of its directory. */
const INHERITED = ['system.posix_acl_access', 'system.posix_acl_default'];
/** An error says which attribute it is about. */
function named(attribute: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    throw new Error(`attribute ${attribute}: ${messageOf(error)}`, { cause: error });
  }
}

/** Takes away the ACLs that a new file has inherited. Throws an Error if one cannot be taken away. */
export function removeInherited(path: string): void {
  for (const name of INHERITED) named(name, () => removeAttribute(path, name));
}

/** Sets extended attributes, ACLs among them. Throws an Error with the name of one that cannot be set. */
function setAttributes(path: string, attributes: Preparation['files'][number]['attributes']): void {
  for (const { name, value } of attributes) {
    named(name, () => setAttribute(path, name, Buffer.from(value, 'base64')));
  }
}

const memoryFileSystems: readonly number[] = [TMPFS_MAGIC, RAMFS_MAGIC];

/**
 * Throws an Error if what is to be made would land on a disk, because a mount is missing, or behind a
 * symbolic link: it went with a memory file system, and its path has no link in it.
 */
function checkParent(path: string): void {
  const parent = dirname(path);
  if (realpathSync(parent) !== parent) throw new Error(`${parent} is behind a symbolic link`);
  if (!memoryFileSystems.includes(statfsSync(parent).type >>> 0)) {
    throw new Error(`${parent} is on a disk and was in memory: a mount is missing`);
  }
}

type Directory = Preparation['directories'][number];

/** Makes a directory, unless it is there. Throws an Error if it cannot be made where it was. */
export function makeDirectory(directory: Directory): void {
  if (existsSync(directory.path)) return;
  checkParent(directory.path);
  mkdirSync(directory.path);
  applyDirectory(directory);
}

/** Gives a directory its owner, mode and attributes. Throws an Error if it is not where it was. */
export function applyDirectory({ path, mode, uid, gid, attributes }: Directory): void {
  checkParent(path);
  removeInherited(path);
  chownSync(path, uid, gid);
  chmodSync(path, mode);
  setAttributes(path, attributes);
}

function copyChunks(from: number, to: number, { contentOffset, chunks }: ToMake): void {
  const block = Buffer.allocUnsafe(BLOCK);
  let at = contentOffset;
  for (const { offset, length } of chunks) {
    for (let done = 0; done < length; ) {
      const got = readSync(from, block, 0, Math.min(BLOCK, length - done), at + done);
      if (got === 0) throw new Error('the content in the images is too short');
      let written = 0;
      while (written < got) written += writeSync(to, block, written, got - written, offset + done + written);
      done += got;
    }
    at += length;
  }
}

/**
 * Makes a regular file or FIFO of which there is none yet. Throws an Error if it cannot be made where it was.
 */
export function makeFile(directory: string, file: ToMake): void {
  const { path, identity } = file;
  const { mode, uid, gid, sizeBytes } = identity;
  checkParent(path);
  if (typeOf(mode) === fileType.fifo) {
    if (!existsSync(path)) makeFifo(path, 0o600);
  } else {
    const from = openImage(contentPath(directory));
    const to = openSync(path, 'wx', 0o600);
    try {
      copyChunks(from, to, file);
      ftruncateSync(to, sizeBytes);
    } catch (error) {
      rmSync(path);
      throw error;
    } finally {
      closeSync(to);
      closeSync(from);
    }
  }
  removeInherited(path);
  chownSync(path, uid, gid);
  chmodSync(path, permissionsOf(mode));
  setAttributes(path, file.attributes);
  utimesSync(path, file.accessedMicroseconds / 1e6, file.modifiedMicroseconds / 1e6);
}

/** Makes a symbolic link. Throws an Error if it is there, or cannot be made where it was. */
export function makeSymlink({ path, target, uid, gid }: Preparation['symlinks'][number]): void {
  checkParent(path);
  symlinkSync(target, path);
  lchownSync(path, uid, gid);
}

/** Gives a file another name. Throws an Error if that is there, or the file is not. */
export function makeName({ path, of }: Preparation['names'][number]): void {
  checkParent(path);
  linkSync(of, path);
}
