import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  futimesSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { UnwrittenFile } from '../../model/file.ts';
import { inodeGeneration } from './inode-generation.ts';
import { contentRuns } from './path.ts';
import type { FileProblem } from './prepare.ts';

/** Old memory that can be looked at without a copy; `PhysicalMemory` of src/vmcore is one. */
export interface OldMemory {
  view(physical: number, length: number): Uint8Array;
}

export interface WriteBackResult {
  /** Files that were written to, or made. */
  readonly written: readonly string[];
  readonly bytes: number;
  /** Files that are not what they were: nothing was written to them. */
  readonly problems: readonly FileProblem[];
}

/** Bytes that are compared at a time. */
const BLOCK = 1 << 18;

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

/** Opens the file; undefined if its inode number or generation is another one. */
function openSame(path: string, { identity }: UnwrittenFile, access: number): number | undefined {
  const fd = openSync(path, access | constants.O_NOFOLLOW);
  const generation = inodeGeneration(fd);
  const isSame = generation === undefined || identity.generation === 0 || generation === identity.generation;
  if (fstatSync(fd).ino === identity.inode && isSame) return fd;
  closeSync(fd);
  return undefined;
}

/** Opens the file for writing; one that the disk does not know yet is made, if all of it is there. A string says why not. */
function openToWrite(path: string, file: UnwrittenFile): number | string {
  const { identity, isWhole } = file;
  try {
    const fd = openSame(path, file, constants.O_RDWR);
    return fd ?? 'is another file than before the panic; what was to be written to it is lost';
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  if (!isWhole) return 'is not on the disk, and not whole in memory';
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  fchownSync(fd, identity.uid, identity.gid);
  fchmodSync(fd, identity.mode & 0o7777);
  return fd;
}

/**
 * Whether the disk has all of it: so it is with most files that were changed lately, and each write that is not made saves one
 * disk's round trip. Opens it for reading only, because a program that runs may not be opened for writing.
 */
function isOnDisk(path: string, file: UnwrittenFile, memory: OldMemory): boolean {
  if (file.dirty.length > 0) return false;
  let fd: number | undefined;
  try {
    fd = openSame(path, file, constants.O_RDONLY);
    return fd !== undefined && hasSameContent(fd, file, memory);
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function hasSameContent(fd: number, file: UnwrittenFile, memory: OldMemory): boolean {
  const { sizeBytes } = file.identity;
  const { size, mtimeMs } = fstatSync(fd);
  if (size !== sizeBytes || Math.abs(mtimeMs - file.modifiedMicroseconds / 1e3) >= 1) return false;
  return contentRuns(file.clean, sizeBytes).every(({ offset, physical, length }) =>
    blocksOf(memory.view(physical, length)).every(({ block, at }) => isSameBlock(fd, block, offset + at)),
  );
}

function writeAt(fd: number, data: Uint8Array, offset: number): void {
  for (let done = 0; done < data.length; ) {
    done += writeSync(fd, data, done, data.length - done, offset + done);
  }
}

function blocksOf(data: Uint8Array): { block: Uint8Array; at: number }[] {
  const count = Math.ceil(data.length / BLOCK);
  return Array.from({ length: count }, (_, i) => ({
    block: data.subarray(i * BLOCK, (i + 1) * BLOCK),
    at: i * BLOCK,
  }));
}

function isSameBlock(fd: number, block: Uint8Array, offset: number): boolean {
  const onDisk = Buffer.allocUnsafe(block.length);
  return readSync(fd, onDisk, 0, block.length, offset) === block.length && onDisk.equals(block);
}

/** Writes only the blocks that the disk has otherwise; returns the bytes written. */
function writeIfDifferent(fd: number, data: Uint8Array, offset: number): number {
  let bytes = 0;
  for (const { block, at } of blocksOf(data)) {
    if (isSameBlock(fd, block, offset + at)) continue;
    writeAt(fd, block, offset + at);
    bytes += block.length;
  }
  return bytes;
}

function writeFile(fd: number, file: UnwrittenFile, memory: OldMemory): number {
  const { sizeBytes } = file.identity;
  let bytes = 0;
  for (const { offset, physical, length } of contentRuns(file.dirty, sizeBytes)) {
    writeAt(fd, memory.view(physical, length), offset);
    bytes += length;
  }
  for (const { offset, physical, length } of contentRuns(file.clean, sizeBytes)) {
    bytes += writeIfDifferent(fd, memory.view(physical, length), offset);
  }
  ftruncateSync(fd, sizeBytes);
  futimesSync(fd, file.accessedMicroseconds / 1e6, file.modifiedMicroseconds / 1e6);
  fsyncSync(fd);
  return bytes;
}

/**
 * Writes to the disks what the dead kernel had in memory only: data, sizes and times, in place. `root` is where the old root
 * file system is mounted. A file whose inode number or generation is another one is left alone and reported.
 */
export function writeBack(files: readonly UnwrittenFile[], memory: OldMemory, root = '/'): WriteBackResult {
  const written: string[] = [];
  const problems: FileProblem[] = [];
  let bytes = 0;
  for (const file of files) {
    const { path } = file;
    try {
      if (isOnDisk(join(root, path), file, memory)) continue;
      const fd = openToWrite(join(root, path), file);
      if (typeof fd === 'string') {
        problems.push({ path, problem: fd });
        continue;
      }
      try {
        bytes += writeFile(fd, file, memory);
      } finally {
        closeSync(fd);
      }
      written.push(path);
    } catch (error) {
      problems.push({
        path,
        problem: `cannot be written: ${error instanceof Error ? error.message : error}`,
      });
    }
  }
  return { written, bytes, problems };
}
