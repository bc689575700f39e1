import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import type { SwapArea, SwapFile } from '../../linux/readers/swap-areas.ts';
import { SwapError } from '../../linux/readers/swap-areas.ts';
import { O_PATH } from '../../system/file-calls.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { messageOf } from '../../system/thrown.ts';
import { withFile } from '../files/with-file.ts';
import { isSameFileSystem, isSameInode } from '../write-back/identity.ts';
import {
  type BlockDevice,
  blockDevices,
  devicePath,
  findFileDevice,
  findSwapDevice,
} from './block-devices.ts';
import { fileRanges, hasExtents } from './file-extents.ts';

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;

/** A swap area whose device is open for reading. */
export interface OpenArea extends Pick<SwapArea, 'name' | 'slots' | 'extents'> {
  readonly fd: number;
}

/**
 * Finds the device of a swap area among those of this kernel, and makes sure that the area is on it. Nothing
 * is written to it. Throws a SwapError that says why it is not read.
 */
export function openSwapArea(area: SwapArea): OpenArea {
  const { name, slots, extents, file } = area;
  const device = file === undefined ? diskOf(area) : diskOfFile(area, file);
  const fd = openDevice(area, device);
  try {
    checkHeader(area, fd);
    return { name, slots, extents, fd };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function diskOf({ name, device }: SwapArea): BlockDevice {
  let found: BlockDevice | string;
  try {
    found = findSwapDevice(device, blockDevices());
  } catch (error) {
    found = `is not found again: ${messageOf(error)}`;
  }
  if (typeof found === 'string') throw new SwapError(`the swap area ${name} ${found}`);
  return found;
}

/**
 * The device that the file system of a swap file is mounted from. The file has to be the one of then, by its
 * device, its file system, its number and where it lies: what this kernel has allocated since is elsewhere.
 */
function diskOfFile({ name, device, extents }: SwapArea, file: SwapFile): BlockDevice {
  const refuse = (problem: string): never => {
    throw new SwapError(`the swap file ${name} ${problem}`);
  };
  try {
    if (realpathSync(file.path) !== file.path) refuse('is behind a symbolic link now');
    return withFile(openRegular(file.path), (fd) => {
      const stats = fstatSync(fd);
      if (file.fileSystem.uuid === undefined) refuse('is not found again');
      if (!isSameFileSystem(fd, file.fileSystem)) refuse('is on another file system than before the panic');
      if (!isSameInode(fd, file) || stats.size !== file.sizeBytes)
        refuse('is another file than before the panic');
      const ranges = fileRanges(fd);
      if (ranges === undefined || !hasExtents(ranges, extents))
        refuse('lies elsewhere on its disk than before the panic');
      const found = findFileDevice(device, stats.dev, blockDevices());
      return typeof found === 'string' ? refuse(found) : found;
    });
  } catch (error) {
    if (error instanceof SwapError) throw error;
    return refuse(`is not found again: ${messageOf(error)}`);
  }
}

/**
 * Opens a regular file for reading by a path of the dead kernel. To open something else may act: it is looked
 * at first, and then that is opened and nothing that has come into its place. Throws a SwapError or an error
 * of the system.
 */
export function openRegular(path: string): number {
  return withFile(openSync(path, O_PATH | O_NOFOLLOW), (held) => {
    if (!fstatSync(held).isFile()) throw new SwapError(`the swap file ${path} is no regular file now`);
    return openSync(`/proc/self/fd/${held}`, O_RDONLY);
  });
}

function openDevice({ name }: SwapArea, { name: device, number }: BlockDevice): number {
  const path = devicePath(device);
  try {
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    const stats = fstatSync(fd);
    if (stats.isBlockDevice() && stats.rdev === number) return fd;
    closeSync(fd);
  } catch (error) {
    throw new SwapError(`the swap area ${name} cannot be read: ${messageOf(error)}`);
  }
  throw new SwapError(`the swap area ${name} cannot be read: ${path} is another device`);
}

/** `union swap_header` (include/linux/swap.h). */
const MAGIC = { at: PAGE_SIZE - 10, text: 'SWAPSPACE2' };
const VERSION_AT = 1024;
const LAST_PAGE_AT = 1028;

/** The first page of an area says what it is. Throws a SwapError if it is not the one of then. */
export function checkHeader({ name, slots, extents, file }: SwapHeaderOf, fd: number): void {
  const refuse = (problem: string): never => {
    throw new SwapError(`the swap area ${name} ${problem}`);
  };
  const page = Buffer.alloc(PAGE_SIZE);
  try {
    const at = (extents[0]?.block ?? 0) * PAGE_SIZE;
    if (readSync(fd, page, 0, PAGE_SIZE, at) !== PAGE_SIZE) refuse('has no header');
  } catch (error) {
    if (error instanceof SwapError) throw error;
    refuse(`cannot be read: ${messageOf(error)}`);
  }
  const magic = page.toString('latin1', MAGIC.at);
  if (magic !== MAGIC.text) refuse(`has no header of a swap area (${JSON.stringify(magic)})`);
  const version = page.readUInt32LE(VERSION_AT);
  if (version !== 1) refuse(`has a header of version ${version}`);
  // Of a file the kernel uses what lies on its disk in whole pages.
  const inHeader = page.readUInt32LE(LAST_PAGE_AT) + 1;
  if (file === undefined ? inHeader !== slots : inHeader < slots)
    refuse(`has ${inHeader} slots by its header, and had ${slots}`);
}

type SwapHeaderOf = Pick<SwapArea, 'name' | 'slots' | 'extents' | 'file'>;
