import {
  type BigIntStats,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import type { DirectoryIdentity, UnwrittenFile } from '../../model/file.ts';
import { contentRuns, type PageRuns } from '../../model/page-runs.ts';
import { forgetCached, setTimes } from '../../system/file-calls.ts';
import { permissionsOf, SET_ID } from '../../system/file-mode.ts';
import { inodeGeneration } from '../../system/inode-generation.ts';
import { hasAttribute, removeInherited, removeOpenAttribute } from '../../system/xattr.ts';
import { withFile } from '../files/with-file.ts';
import { checkFileSystem } from './identity.ts';
import type { OldDirectory } from './old-directory.ts';
import { checkSize, endsWithZeros, type OldMemory } from './old-size.ts';
import { WriteBackRefusal } from './refusal.ts';

/** Bytes that are compared at a time. */
const BLOCK = 1 << 18;
/** One for all comparisons: what is allocated for each adds up before it is collected. */
const onDisk = Buffer.alloc(BLOCK);
/** Flags that open a file without changing it, waiting for it, or following a link. */
export const FOR_A_LOOK = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const ACL = 'system.posix_acl_access';
const CAPABILITY = 'security.capability';

/** Runs of pages as blocks of at most BLOCK bytes, cut off at the end of the file. */
function* blocksOf(
  runs: PageRuns,
  sizeBytes: number,
): Generator<{ offset: number; physical: number; length: number }, void, undefined> {
  for (const { offset, physical, length } of contentRuns(runs, sizeBytes)) {
    for (let at = 0; at < length; at += BLOCK) {
      yield { offset: offset + at, physical: physical + at, length: Math.min(BLOCK, length - at) };
    }
  }
}

/**
 * Leaves little of the file in the page cache: there the crash world's own program would have to make room
 * for it.
 */
function isSameBlock(fd: number, block: Uint8Array, offset: number): boolean {
  const read = readSync(fd, onDisk, 0, block.length, offset);
  forgetCached(fd, offset, block.length);
  return read === block.length && onDisk.subarray(0, read).equals(block);
}

function hasSameContent(fd: number, { clean, identity }: UnwrittenFile, memory: OldMemory): boolean {
  return blocksOf(clean, identity.sizeBytes).every(({ offset, physical, length }) =>
    memory.withView(physical, length, (block) => isSameBlock(fd, block, offset)),
  );
}

function writeAt(fd: number, data: Uint8Array, offset: number): void {
  for (let done = 0; done < data.length; ) {
    done += writeSync(fd, data, done, data.length - done, offset + done);
  }
}

/**
 * Writes the dirty pages, and of the clean ones those blocks that the disk has otherwise; returns the bytes
 * written.
 */
function writeContent(fd: number, file: UnwrittenFile, memory: OldMemory): number {
  const { sizeBytes } = file.identity;
  let bytes = 0;
  for (const { offset, physical, length } of blocksOf(file.dirty, sizeBytes)) {
    memory.withView(physical, length, (block) => writeAt(fd, block, offset));
    bytes += length;
  }
  for (const { offset, physical, length } of blocksOf(file.clean, sizeBytes)) {
    const isWritten = memory.withView(physical, length, (block) => {
      if (isSameBlock(fd, block, offset)) return false;
      writeAt(fd, block, offset);
      return true;
    });
    if (isWritten) bytes += length;
  }
  if (fstatSync(fd).size !== sizeBytes) ftruncateSync(fd, sizeBytes);
  return bytes;
}

/** Bytes that were written; undefined if the disk had everything. */
export type Written = number | undefined;

/**
 * Whoever may write to a file loses its capabilities by it, and its set-user-ID bit: neither may come to
 * stand beside foreign content.
 */
function checkPrivileges(fd: number, stats: BigIntStats, { identity }: UnwrittenFile): void {
  const { mode, uid, gid } = identity;
  if (Number(stats.mode) !== mode || Number(stats.uid) !== uid || Number(stats.gid) !== gid) {
    throw new WriteBackRefusal('has another mode or owner on the disk than it had');
  }
  if (hasAttribute(fd, CAPABILITY)) {
    throw new WriteBackRefusal('has file capabilities, which a write would take away');
  }
}

/**
 * Brings a file that is the one of then up to date. Opens it for writing only if something is to be written:
 * a program that runs may not be.
 */
export function updateFile(path: string, file: UnwrittenFile, memory: OldMemory): Written {
  return withFile(openSync(path, FOR_A_LOOK), (fd) => {
    checkFileSystem(fd, file);
    const stats = fstatSync(fd, { bigint: true });
    if (
      file.dirty.pages > 0 ||
      Number(stats.size) !== file.identity.sizeBytes ||
      !hasSameContent(fd, file, memory)
    ) {
      checkPrivileges(fd, stats, file);
      checkSize(fd, stats, file, memory);
      return withFile(openSync(`/proc/self/fd/${fd}`, constants.O_RDWR), (writable) => {
        const bytes = writeContent(writable, file, memory);
        setTimes(writable, file.accessedNanoseconds, file.modifiedNanoseconds);
        fsyncSync(writable);
        return bytes;
      });
    }
    if (stats.mtimeNs === file.modifiedNanoseconds) return undefined;
    setTimes(fd, file.accessedNanoseconds, file.modifiedNanoseconds);
    fsyncSync(fd);
    return 0;
  });
}

/**
 * Whether a file on the disk has the mode, owner and group that it had, and an access control list if it is
 * known to have had one.
 */
export function hasSameAccess(fd: number, { identity, hasAcl }: UnwrittenFile): boolean {
  const { mode, uid, gid } = fstatSync(fd);
  const isSame = mode === identity.mode && uid === identity.uid && gid === identity.gid;
  if (!isSame || hasAcl === undefined) return isSame;
  const hasNow = hasAttribute(fd, ACL);
  return hasNow === hasAcl;
}

/**
 * Makes a file that the disk does not know yet, if all of it is there; what cannot be finished is removed
 * again. The directory is not synchronised.
 * @param name the one that it is to have at first
 * @param situation what is wrong with the disk, for the message if the file cannot be made
 */
export function makeOldFile(
  directory: OldDirectory,
  name: string,
  file: UnwrittenFile,
  memory: OldMemory,
  situation: string,
): { readonly bytes: number; readonly made: DirectoryIdentity } {
  const { mode, uid, gid } = file.identity;
  if (!file.isWhole || !endsWithZeros(file, memory)) {
    throw new WriteBackRefusal(`${situation}, and not whole in memory`);
  }
  if ((mode & SET_ID) !== 0) {
    throw new WriteBackRefusal(`${situation}, and a set-user-ID program is not made anew`);
  }
  if (file.hasAcl !== false) {
    throw new WriteBackRefusal(
      `${situation}, and ${file.hasAcl ? 'had' : 'may have had'} an access control list`,
    );
  }
  checkFileSystem(directory.fd, file);
  const path = directory.pathOf(name);
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    return withFile(fd, () => {
      const bytes = writeContent(fd, file, memory);
      removeInherited(path);
      fchownSync(fd, uid, gid);
      fchmodSync(fd, permissionsOf(mode));
      setTimes(fd, file.accessedNanoseconds, file.modifiedNanoseconds);
      fsyncSync(fd);
      return { bytes, made: { inode: fstatSync(fd).ino, generation: inodeGeneration(fd) ?? 0 } };
    });
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
}

/** What was done to a file that could be a program with rights of its own. */
export type Disarmed = 'nothing' | 'disarmed' | 'has other names';

/**
 * Takes away what gives a program more rights than its caller has: a file that stays under another name must
 * not go on having them. One that has still other names is left as it is, for they are in use. Throws an
 * Error if the file is not there or cannot be changed.
 */
export function disarmFile(path: string): Disarmed {
  return withFile(openSync(path, FOR_A_LOOK), (fd) => {
    const { mode, nlink } = fstatSync(fd);
    const isCapable = hasAttribute(fd, CAPABILITY);
    const isSetId = (mode & SET_ID) !== 0;
    if (!isCapable && !isSetId) return 'nothing';
    if (nlink > 1) return 'has other names';
    if (isCapable) removeOpenAttribute(fd, CAPABILITY);
    if (isSetId) fchmodSync(fd, permissionsOf(mode) & ~SET_ID);
    fsyncSync(fd);
    return 'disarmed';
  });
}
