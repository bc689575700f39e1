import { isUtf8 } from 'node:buffer';
import { type Dentry, decodePath, dentryChildren, dentryName, dentryStruct } from '../linux/dcache.ts';
import {
  type FileSystem,
  fileSystemOf,
  fileType,
  type Inode,
  inodeStruct,
  inodeTimes,
  superBlockStruct,
} from '../linux/fs.ts';
import { listReadEntries } from '../linux/list.ts';
import type { MountPoint } from '../linux/mount-table.ts';
import { pageCache } from '../linux/pagemap.ts';
import { shmemSymlink } from '../linux/shmem.ts';
import type { DirectoryToMake, FileToMake, MemoryFiles, NameToMake, SymlinkToMake } from '../model/file.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { within } from './files/content.ts';
import { attributesOf, identityOf } from './files/named.ts';

/** Names on all memory file systems together that are looked at. */
const MAX_NAMES = 1 << 20;
/** PATH_MAX of include/uapi/linux/limits.h. */
const PATH_MAX = 4096;
/** Of a file that may hold nothing but a process id and a few words. */
const PID_FILE_BYTES = 4096;

/** A file that names a process in its first line, as daemons and locks do. */
export interface PidFile {
  readonly path: string;
  readonly pid: number;
}

export interface CapturedMemoryFiles {
  readonly files: MemoryFiles;
  /** Those of `files` on file systems that a boot fills anew. */
  readonly pidFiles: readonly PidFile[];
  /** What cannot be made again, and why: sentences that begin with the path. */
  readonly problems: readonly string[];
}

/** Whether a boot fills a file system anew with what it needs: what others have there is kept by name only. */
export function isFilledAtBoot(path: string): boolean {
  return path === '/run' || path.startsWith('/run/');
}

/**
 * Everything that has a name on the dead world's tmpfs mounts: directories, regular files with their content, FIFOs, symbolic links, other
 * names of the same file. Sockets are left out: nobody listens on them, unless their process comes back, and that makes them again. Of the
 * file systems that a boot fills anew only files are kept that name one of `pids` in their first line.
 * What a mount hides is left out: nobody could reach it by its name.
 * @param points whole file systems; one that is mounted twice is looked at once
 * @param mountpoints the directories on which anything is mounted
 */
export function captureMemoryFiles(
  kernel: Kernel,
  points: readonly MountPoint[],
  mountpoints: ReadonlySet<bigint>,
  pids: ReadonlySet<number>,
): CapturedMemoryFiles {
  const walk = new Walk(kernel, mountpoints, pids);
  const superBlocks = new Set<bigint>();
  for (const point of points) {
    const { mnt_sb, mnt_root } = point.mount;
    if (superBlocks.has(mnt_sb) || mountpoints.has(mnt_root)) continue;
    superBlocks.add(mnt_sb);
    walk.fileSystem(point.path, mnt_sb, mnt_root);
  }
  return walk.result();
}

/** A directory that is still to be looked into. */
interface Pending {
  readonly path: string;
  readonly dentry: bigint;
  readonly fileSystem: FileSystem;
  /** All is kept; nothing, because a mount hides it; or those files only that name a process. */
  readonly keep: 'all' | 'nothing' | 'pid-files';
}

class Walk {
  readonly #kernel: Kernel;
  readonly #mountpoints: ReadonlySet<bigint>;
  readonly #pids: ReadonlySet<number>;
  readonly #directories: DirectoryToMake[] = [];
  readonly #files: FileToMake[] = [];
  readonly #symlinks: SymlinkToMake[] = [];
  readonly #names: NameToMake[] = [];
  readonly #pidFiles: PidFile[] = [];
  readonly #problems: string[] = [];
  /** Inodes that have been met, with their first path if that is kept. */
  readonly #met = new Map<bigint, string | undefined>();
  #left = MAX_NAMES;

  constructor(kernel: Kernel, mountpoints: ReadonlySet<bigint>, pids: ReadonlySet<number>) {
    this.#kernel = kernel;
    this.#mountpoints = mountpoints;
    this.#pids = pids;
  }

  result(): CapturedMemoryFiles {
    return {
      files: {
        directoriesToMake: this.#directories,
        filesToMake: this.#files,
        symlinksToMake: this.#symlinks,
        namesToMake: this.#names,
      },
      pidFiles: this.#pidFiles,
      problems: this.#problems,
    };
  }

  fileSystem(path: string, superBlock: bigint, root: bigint): void {
    this.#attempt(path, () => {
      const keep = isFilledAtBoot(path) ? 'pid-files' : 'all';
      const fileSystem = fileSystemOf(this.#kernel, superBlock);
      const pending: Pending[] = [{ path, dentry: root, fileSystem, keep }];
      for (let at = pending.pop(); at !== undefined; at = pending.pop()) pending.push(...this.#directory(at));
      if (keep === 'all') this.#checkInodes(path, superBlock, root);
    });
  }

  /** What goes wrong with one name is the loss of that name. */
  #attempt(path: string, step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      this.#problems.push(`${path} cannot be read: ${error.message}`);
    }
  }

  /** @returns the directories in it */
  #directory(at: Pending): Pending[] {
    const within: Pending[] = [];
    this.#attempt(at.path, () => {
      let hidden = 0;
      for (const child of dentryChildren(this.#kernel, at.dentry, this.#left)) {
        this.#left--;
        if (at.keep === 'nothing') hidden++;
        this.#attempt(`a file in ${at.path}`, () => {
          const path = this.#pathOf(at, child);
          this.#attempt(path, () => {
            const directory = this.#entry(path, child, at);
            if (directory !== undefined) within.push(directory);
          });
        });
      }
      if (hidden > 0) this.#problems.push(`${at.path}: ${hidden} files that a mount hid`);
    });
    return within;
  }

  #pathOf({ path }: Pending, child: Dentry): string {
    const name = dentryName(this.#kernel, child);
    if (name === '.' || name === '..' || name.includes('/')) throw new VmcoreError('its name is none');
    const whole = `${path === '/' ? '' : path}/${decodePath(child.address, Buffer.from(name, 'latin1'))}`;
    if (Buffer.byteLength(whole) >= PATH_MAX) throw new VmcoreError('its path is too long');
    return whole;
  }

  /** @returns the directory, if it is one */
  #entry(path: string, child: Dentry, { fileSystem, keep }: Pending): Pending | undefined {
    const inode = this.#kernel.bind(inodeStruct).at(child.d_inode);
    const type = inode.i_mode & fileType.mask;
    if (keep === 'nothing') this.#met.set(inode.address, undefined);
    if (type === fileType.directory) {
      if (keep === 'all') this.#directoryToMake(path, inode, fileSystem);
      const isHidden = this.#mountpoints.has(child.address);
      return { path, dentry: child.address, fileSystem, keep: isHidden ? 'nothing' : keep };
    }
    if (keep === 'all') {
      this.#file(path, inode, type, fileSystem);
    } else if (
      keep === 'pid-files' &&
      type === fileType.regular &&
      inode.i_size > 0 &&
      inode.i_size <= PID_FILE_BYTES
    ) {
      this.#pidFile(path, inode, fileSystem);
    }
    return undefined;
  }

  #directoryToMake(path: string, inode: Inode, fileSystem: FileSystem): void {
    this.#met.set(inode.address, path);
    const { i_mode, i_uid: uid, i_gid: gid } = inode;
    const attributes = attributesOf(this.#kernel, fileSystem, inode.address);
    this.#directories.push({ path, mode: i_mode & 0o7777, uid, gid, attributes });
  }

  #file(path: string, inode: Inode, type: number, fileSystem: FileSystem): void {
    const first = this.#met.get(inode.address);
    if (first !== undefined) {
      this.#names.push({ path, of: first });
      return;
    }
    this.#met.set(inode.address, path);
    switch (type) {
      case fileType.regular:
      case fileType.fifo:
        this.#files.push(this.#fileToMake(path, inode, type, fileSystem));
        return;
      case fileType.symlink: {
        const target = shmemSymlink(this.#kernel, inode);
        if (!isUtf8(target)) {
          this.#problems.push(`${path} leads to a name that is not UTF-8`);
          return;
        }
        this.#symlinks.push({ path, target: target.toString('utf8'), uid: inode.i_uid, gid: inode.i_gid });
        return;
      }
      case fileType.socket:
        return;
      default:
        this.#problems.push(`${path} is a device node`);
    }
  }

  #fileToMake(path: string, inode: Inode, type: number, fileSystem: FileSystem): FileToMake {
    const kernel = this.#kernel;
    const cache = type === fileType.regular ? pageCache(kernel, inode.i_mapping, true) : undefined;
    if (cache !== undefined && cache.swapped > 0)
      throw new VmcoreError(`${cache.swapped} of its pages are in swap`);
    const { accessedMicroseconds, modifiedMicroseconds } = inodeTimes(kernel, inode.address);
    return {
      path,
      identity: identityOf(inode, fileSystem),
      accessedMicroseconds,
      modifiedMicroseconds,
      attributes: attributesOf(kernel, fileSystem, inode.address),
      runs: within(cache?.runs ?? [], inode.i_size),
    };
  }

  #pidFile(path: string, inode: Inode, fileSystem: FileSystem): void {
    const file = this.#fileToMake(path, inode, fileType.regular, fileSystem);
    const [run] = file.runs;
    if (run === undefined) return;
    const text = Buffer.from(this.#kernel.physical.view(run.physical, inode.i_size)).toString('latin1');
    const pid = Number(/^\s*(\d+)\s*?(\n|$)/.exec(text)?.[1]);
    if (!this.#pids.has(pid)) return;
    this.#files.push(file);
    this.#pidFiles.push({ path, pid });
  }

  /** The second source: every inode of the file system that has a name must have been met under one. */
  #checkInodes(path: string, superBlock: bigint, root: bigint): void {
    const kernel = this.#kernel;
    const { s_inodes } = kernel.bind(superBlockStruct).at(superBlock);
    const Inode = kernel.bind(inodeStruct);
    const { entries, damage } = listReadEntries(kernel, s_inodes, Inode, 'i_sb_list', 2 * MAX_NAMES);
    if (damage !== undefined) this.#problems.push(`${path}: the list of its files: ${damage}`);
    const { d_inode } = kernel.bind(dentryStruct).at(root);
    const lost = entries.filter(
      ({ address, i_nlink }) => i_nlink > 0 && address !== d_inode && !this.#met.has(address),
    );
    if (lost.length > 0) this.#problems.push(`${path}: ${lost.length} files are in no directory`);
  }
}
