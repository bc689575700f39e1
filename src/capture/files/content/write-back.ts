import { dentryStruct, hasChild, inodePaths, type ResolvedPath } from '../../../linux/dcache.ts';
import {
  fileSystemIdentity,
  fileSystemOf,
  type Inode,
  inodeStruct,
  inodeTimes,
  S_SWAPFILE,
  sectorsOf,
} from '../../../linux/fs.ts';
import { readClocks } from '../../../linux/readers/clocks.ts';
import type { Clocks } from '../../../linux/timekeeping.ts';
import {
  type Found,
  recentlyChangedInodes,
  unwrittenInodes,
  writableDisks,
} from '../../../linux/writeback.ts';
import { hasAcl } from '../../../linux/xattr.ts';
import type { DirectoryIdentity, UnwrittenFile } from '../../../model/file.ts';
import { listedRuns } from '../../../model/page-runs.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import { PAGE_SIZE, pageEnd } from '../../../system/page.ts';
import { readable, VmcoreError } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { identityOf } from '../named.ts';
import { type PageCache, pageCache } from './page-cache.ts';

/**
 * How long a journal may hold back what it was told (ext4 commits every 5 s, xfs writes its log every 30 s):
 * of a file that was changed since then, pages that are clean may still be missing on the disk, with the
 * blocks that were allocated for them.
 */
const RECENT_SECONDS = 60;

function recentSince(clocks: Clocks): number {
  return Number(clocks.realtime / 1_000_000_000n) - RECENT_SECONDS;
}

/** Entries of a directory that are looked through for a name. */
const MAX_ENTRIES = 1 << 20;

/** Whether the dead kernel knew something by a name in the directory of a file, or that cannot be told. */
export function isNamed(kernel: Kernel, { directoryDentry }: UnwrittenFile, name: string): boolean {
  return readable(() => hasChild(kernel, directoryDentry, name, MAX_ENTRIES)) ?? true;
}

function directoryIdentity(kernel: Kernel, dentry: bigint): DirectoryIdentity {
  const { d_inode } = kernel.bind(dentryStruct).at(dentry);
  const { i_ino, i_generation } = kernel.bind(inodeStruct).at(d_inode);
  return { inode: i_ino, generation: i_generation };
}

/** Whether pages are cached from the beginning to the end of a file, and none after it. */
function isWhole({ runs }: PageCache, sizeBytes: number): boolean {
  let end = 0;
  for (const { address, pages } of runs) {
    if (address !== end) return false;
    end += pages * PAGE_SIZE;
  }
  return end === pageEnd(sizeBytes);
}

/**
 * What of a regular file may be missing on the disk; undefined if nothing is, a sentence if it cannot be
 * told. Throws a VmcoreError if the inode or its page cache is damaged.
 */
export function unwrittenFile(
  kernel: Kernel,
  inode: Inode,
  clocks: Clocks,
): UnwrittenFile | string | undefined {
  if (typeOf(inode.i_mode) !== fileType.regular || inode.i_nlink === 0) return undefined;
  // The kernel swaps to its blocks; what the page cache has of it is from before.
  if ((inode.i_flags & S_SWAPFILE) !== 0) return undefined;
  const { changedSeconds, accessedNanoseconds, modifiedNanoseconds } = inodeTimes(kernel, inode.address);
  const isRecent = changedSeconds > recentSince(clocks);
  const cache = pageCache(kernel, inode.i_mapping, false);
  if (cache.unwritten.pages === 0 && !isRecent) return undefined;
  const place = inodePaths(kernel, inode.address)[0];
  // What is written already and nobody has by name is as it would be after any crash.
  if (place === undefined && cache.unwritten.pages === 0) return undefined;
  const name = place?.path ?? `inode ${inode.i_ino}`;
  if (cache.partial > 0) return `${name}: ${cache.partial} pages of it are valid only in part`;
  if (place === undefined) return `${name} has data that was not written, and no known path`;
  const directoryDentry = place.directories.at(-1);
  if (directoryDentry === undefined) return `${name} has data that was not written, and is in no directory`;
  const fileSystem = fileSystemOf(kernel, inode.i_sb);
  return {
    path: place.path,
    directories: place.directories.map((dentry) => directoryIdentity(kernel, dentry)),
    directoryDentry,
    directoryModifiedNanoseconds: inodeTimes(kernel, kernel.bind(dentryStruct).at(directoryDentry).d_inode)
      .modifiedNanoseconds,
    links: inode.i_nlink,
    hasAcl: hasAcl(kernel, inode.address),
    fileSystem: fileSystemIdentity(kernel, inode.i_sb),
    identity: identityOf(inode, fileSystem),
    sectors: sectorsOf(inode, fileSystem),
    accessedNanoseconds,
    modifiedNanoseconds,
    dirty: cache.unwritten,
    clean: isRecent ? cache.written : listedRuns([]),
    isWhole: isRecent && !isMountRoot(kernel, inode, place) && isWhole(cache, inode.i_size),
  };
}

/** A file that is mounted by itself: the directory that shows it is not its own. */
function isMountRoot(kernel: Kernel, inode: Inode, { mount }: ResolvedPath): boolean {
  return kernel.bind(dentryStruct).at(mount.mnt_root).d_inode === inode.address;
}

/**
 * The files on disks that hold data which the dead kernel had promised and not written: dirty pages of every
 * mounted disk file system, and all cached pages of files that were changed within the last minute; one after
 * the other, because they may be very many. A damaged file or list becomes a sentence in `problems`; nothing
 * is thrown but what makes the clocks unreadable.
 */
export function* unwrittenFiles(
  kernel: Kernel,
  problems: string[],
  clocks: Clocks = readClocks(kernel),
): Generator<UnwrittenFile> {
  const attempt = <T>(what: string, part: () => T): T | undefined => {
    try {
      return part();
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      problems.push(`${what}: ${error.message}`);
      return undefined;
    }
  };
  const Inode = kernel.bind(inodeStruct);
  const since = recentSince(clocks);
  const found = (what: string, part: () => Found): ReadonlySet<bigint> => {
    const { addresses, damage } = attempt(what, part) ?? { addresses: new Set<bigint>(), damage: [] };
    problems.push(...damage.map((problem) => `${what}: ${problem}`));
    return addresses;
  };
  for (const disk of found('the list of file systems', () => writableDisks(kernel))) {
    const unwritten = found('a list of changed files', () => unwrittenInodes(kernel, disk));
    const recent = found('the list of inodes', () => recentlyChangedInodes(kernel, disk, since));
    for (const address of unwritten.union(recent)) {
      const file = attempt('a changed file', () => unwrittenFile(kernel, Inode.at(address), clocks));
      if (typeof file === 'string') problems.push(file);
      else if (file !== undefined) yield file;
    }
  }
}
