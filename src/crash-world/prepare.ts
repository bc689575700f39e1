import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  realpathSync,
  type Stats,
  statfsSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import koffi from 'koffi';
import { type Preparation, readPreparation } from '../criu/files/preparation.ts';
import type { FileIdentity } from '../model/open-file.ts';
import { inodeGeneration } from './inode-generation.ts';

/** Why a group cannot be restored: a file that it has open is not what it was. */
export interface FileProblem {
  readonly path: string;
  /** Goes on after the path: `is not there`. */
  readonly problem: string;
}

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFIFO = 0o010000;
/** Bytes that are copied at a time. */
const BLOCK = 1 << 20;

const setxattr = koffi
  .load('libc.so.6')
  .func('int lsetxattr(const char *path, const char *name, void *value, size_t size, int flags)');

/** Sets extended attributes, ACLs among them. Throws an Error with the name of one that cannot be set. */
function setAttributes(path: string, attributes: Preparation['files'][number]['attributes']): void {
  for (const { name, value } of attributes) {
    const bytes = Buffer.from(value, 'base64');
    if (setxattr(path, name, bytes, bytes.length, 0) !== 0)
      throw new Error(`attribute ${name}: errno ${koffi.errno()}`);
  }
}

/** TMPFS_MAGIC and RAMFS_MAGIC of linux/magic.h. */
const memoryFileSystems: readonly number[] = [0x0102_1994, 0x8584_58f6];

/**
 * Throws an Error if what is to be made would land on a disk, because a mount is missing, or behind a symbolic link: it went with a memory file
 * system, and its path has no link in it.
 */
function checkParent(path: string): void {
  const parent = dirname(path);
  if (realpathSync(parent) !== parent) throw new Error(`${parent} is behind a symbolic link`);
  if (!memoryFileSystems.includes(statfsSync(parent).type >>> 0)) {
    throw new Error(`${parent} is on a disk and was in memory: a mount is missing`);
  }
}

function makeDirectories({ directories }: Preparation): void {
  for (const { path, mode, uid, gid, attributes } of directories) {
    if (existsSync(path)) continue;
    checkParent(path);
    mkdirSync(path);
    chownSync(path, uid, gid);
    chmodSync(path, mode);
    setAttributes(path, attributes);
  }
}

function copyChunks(from: number, to: number, chunks: Preparation['files'][number]['chunks']): void {
  const block = Buffer.allocUnsafe(BLOCK);
  let at = 0;
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

function makeFile(directory: string, file: Preparation['files'][number]): void {
  const { path, identity } = file;
  const { mode, uid, gid, sizeBytes } = identity;
  checkParent(path);
  if ((mode & S_IFMT) === S_IFIFO) {
    if (!existsSync(path)) execFileSync('mkfifo', ['--', path]);
  } else {
    const from = openSync(join(directory, file.content), 'r');
    const to = openSync(path, 'wx', 0o600);
    try {
      copyChunks(from, to, file.chunks);
      ftruncateSync(to, sizeBytes);
    } finally {
      closeSync(to);
      closeSync(from);
    }
  }
  chownSync(path, uid, gid);
  chmodSync(path, mode & 0o7777);
  setAttributes(path, file.attributes);
  utimesSync(path, file.accessedMicroseconds / 1e6, file.modifiedMicroseconds / 1e6);
}

const typeNames: Readonly<Record<number, string>> = {
  32768: 'a regular file',
  16384: 'a directory',
  8192: 'a character device',
  24576: 'a block device',
  4096: 'a FIFO',
  49152: 'a socket',
  40960: 'a symbolic link',
};

function typeName(mode: number): string {
  return typeNames[mode & S_IFMT] ?? 'something else';
}

function generationDiffers(path: string, identity: FileIdentity): boolean {
  if ((identity.mode & S_IFMT) !== S_IFREG || identity.generation === 0) return false;
  const fd = openSync(path, 'r');
  try {
    const generation = inodeGeneration(fd);
    return generation !== undefined && generation !== identity.generation;
  } finally {
    closeSync(fd);
  }
}

function compare(path: string, stats: Stats, was: FileIdentity): string | undefined {
  if ((stats.mode & S_IFMT) !== (was.mode & S_IFMT)) {
    return `is ${typeName(stats.mode)} and was ${typeName(was.mode)}`;
  }
  if (stats.rdev !== was.rdev) return `is device ${stats.rdev} and was ${was.rdev}`;
  if (!was.onDisk) return undefined;
  if (stats.ino !== was.inode || generationDiffers(path, was)) {
    return `is another file than before the panic (inode ${stats.ino}, was ${was.inode})`;
  }
  const isRegular = (was.mode & S_IFMT) === S_IFREG;
  if (isRegular && stats.size !== was.sizeBytes) return `has ${stats.size} bytes instead of ${was.sizeBytes}`;
  return undefined;
}

/** Whether a file is still the one it was; a sentence's end if it is not. */
export function checkFile(path: string, was: FileIdentity): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? 'is not there' : compare(path, stats, was);
}

/**
 * Makes what a group needs before it is restored (files of memory file systems, and the directories of its sockets) and looks
 * whether the files on disks are still the same. To be called for all groups before the first one is restored: `made`
 * collects the paths that several groups share. A group with problems must not be restored.
 */
export function prepareFiles(directory: string, made: Set<string> = new Set()): FileProblem[] {
  const preparation = readPreparation(directory);
  const problems: FileProblem[] = [];
  const attempt = (path: string, step: () => string | undefined) => {
    try {
      const problem = step();
      if (problem !== undefined) problems.push({ path, problem });
    } catch (error) {
      problems.push({
        path,
        problem: `cannot be made or checked: ${error instanceof Error ? error.message : error}`,
      });
    }
  };
  attempt('directories', () => {
    makeDirectories(preparation);
    return undefined;
  });
  for (const file of preparation.files) {
    attempt(file.path, () => {
      if (made.has(file.path)) return undefined;
      if (lstatSync(file.path, { throwIfNoEntry: false }) !== undefined) return 'is there already';
      makeFile(directory, file);
      made.add(file.path);
      return undefined;
    });
  }
  for (const { path, identity } of preparation.checks) attempt(path, () => checkFile(path, identity));
  return problems;
}
