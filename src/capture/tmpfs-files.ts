import { isUtf8 } from 'node:buffer';
import { type Dentry, dentryChildren, dentryName, dentryStruct, requireWholePath } from '../linux/dcache.ts';
import {
  type FileSystem,
  fileSystemOf,
  type Inode,
  inodeStruct,
  inodeTimes,
  superBlockStruct,
} from '../linux/fs.ts';
import { listForEachEntry } from '../linux/list.ts';
import type { MountPoint } from '../linux/readers/mount-table.ts';
import { shmemSymlink } from '../linux/shmem.ts';
import type { DirectoryToMake, FileToMake, NameToMake, SymlinkToMake, TmpfsFiles } from '../model/file.ts';
import { listedRuns, type PageRuns } from '../model/page-runs.ts';
import { PATH_MAX } from '../system/abi.ts';
import { fileType, permissionsOf, typeOf } from '../system/file-mode.ts';
import { isFilledAtBoot } from '../system/file-systems.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { contentOf } from '../vmcore/stored-pages.ts';
import { within } from './files/content/content.ts';
import { pageCache } from './files/content/page-cache.ts';
import { attributesOf, identityOf } from './files/named.ts';

/**
 * What the crash world's little memory can spare for the model of these files, which any user can make many
 * of, and what a file takes of it besides its path, attributes and extents (what lies between two holes).
 */
const MODEL_BYTES = 8 * 2 ** 20;
const FILE_MODEL_BYTES = 600;
const EXTENT_MODEL_BYTES = 100;
/** Inodes of one file system that are looked at. */
const MAX_INODES = 1 << 22;
/** Of a file that may hold nothing but a process id and a few words. */
const PID_FILE_BYTES = 4096;

/** A file that names a process in its first line, as daemons and locks do. */
export interface PidFile {
  readonly path: string;
  readonly pid: number;
}

export interface CapturedTmpfs {
  readonly files: TmpfsFiles;
  /** Those of `files` on file systems that a boot fills anew. */
  readonly pidFiles: readonly PidFile[];
  /** What cannot be made again, and why: sentences that begin with the path. */
  readonly problems: readonly string[];
}

/**
 * Everything that has a name on the dead world's tmpfs mounts: directories, regular files with their content,
 * FIFOs, symbolic links, other names of the same file. Sockets are left out: nobody listens on them, unless
 * their process comes back, and that makes them again. Of the file systems that a boot fills anew only files
 * are kept that name one of `pids` in their first line, and their directories. What a mount hides is left
 * out, too: nobody could reach it by its name.
 * @param points one that is mounted twice is looked at once; one of which parts are mounted, part by part
 * @param mounts all mounts of the namespace
 * @param isRefilled whether only files that name a process are kept of what is mounted at a path
 */
export function captureTmpfs(
  kernel: Kernel,
  points: readonly MountPoint[],
  mounts: readonly MountPoint[],
  pids: ReadonlySet<number>,
  isRefilled: (path: string) => boolean = isFilledAtBoot,
): CapturedTmpfs {
  const covered = new Set(
    mounts
      .filter(({ mount }) => mount.mnt_parent !== mount.address)
      .map(({ mount }) => placeKey(mount.mnt_parent, mount.mnt_mountpoint)),
  );
  const walk = new TmpfsWalk(kernel, covered, pids, isRefilled);
  const visible = points.filter(({ mount }) => !covered.has(placeKey(mount.address, mount.mnt_root)));
  const walked = new Set<bigint>();
  for (const point of visible) {
    const { mnt_sb } = point.mount;
    if (!walked.has(mnt_sb)) walk.fileSystem(shownBy(kernel, visible, point));
    walked.add(mnt_sb);
  }
  const hidden = points.filter(({ mount }) => !walked.has(mount.mnt_sb));
  const { problems, ...found } = walk.result();
  return { ...found, problems: [...problems, ...hidden.map(({ path }) => `${path}: a mount hid all of it`)] };
}

/**
 * The mounts that together show what is seen of a file system: the first that shows all of it, or its parts.
 */
function shownBy(kernel: Kernel, points: readonly MountPoint[], first: MountPoint): readonly MountPoint[] {
  const { mnt_sb } = first.mount;
  const { s_root } = kernel.bind(superBlockStruct).at(mnt_sb);
  const whole = points.find(({ mount }) => mount.mnt_root === s_root && mount.mnt_sb === mnt_sb);
  if (whole !== undefined) return [whole];
  const parts = points.filter(({ mount }) => mount.mnt_sb === mnt_sb);
  return [...new Map(parts.map((point) => [point.mount.mnt_root, point])).values()];
}

function extentsOf(runs: PageRuns): number {
  let extents = 0;
  let end = -1;
  for (const { address, pages } of runs) {
    if (address !== end) extents++;
    end = address + pages * PAGE_SIZE;
  }
  return extents;
}

/** Where something is mounted: a dentry as one mount shows it. */
const placeKey = (mount: bigint, dentry: bigint): string => `${mount}:${dentry}`;

interface WalkedDirectory {
  readonly path: string;
  readonly dentry: bigint;
  readonly inode: bigint;
  readonly fileSystem: FileSystem;
  readonly mount: bigint;
  /** All is kept; nothing, because a mount hides it; or those files only that name a process. */
  readonly keep: 'all' | 'nothing' | 'pid-files';
  /** Undefined for the root of the file system. */
  readonly parent: WalkedDirectory | undefined;
}

/** Inodes of a directory and of all above it, up to the root of its file system. */
function inodesUpFrom(kernel: Kernel, dentry: bigint): bigint[] {
  const Dentry = kernel.bind(dentryStruct);
  const inodes: bigint[] = [];
  let at = Dentry.at(dentry);
  for (let depth = 0; depth < PATH_MAX / 2; depth++) {
    inodes.push(at.d_inode);
    if (at.d_parent === at.address) break;
    at = Dentry.at(at.d_parent);
  }
  return inodes;
}

class OutOfRoom extends Error {}

class TmpfsWalk {
  readonly #kernel: Kernel;
  readonly #covered: ReadonlySet<string>;
  readonly #pids: ReadonlySet<number>;
  readonly #isRefilled: (path: string) => boolean;
  readonly #directories = new Map<bigint, DirectoryToMake>();
  readonly #files: FileToMake[] = [];
  readonly #symlinks: SymlinkToMake[] = [];
  readonly #names: NameToMake[] = [];
  readonly #pidFiles: PidFile[] = [];
  readonly #problems: string[] = [];
  /** How many names of an inode have been met. */
  readonly #met = new Map<bigint, number>();
  /** The first path of an inode that is kept. */
  readonly #paths = new Map<bigint, string>();
  #room = MODEL_BYTES;
  /** Of the room, what the file systems that are still to come have for themselves. */
  #reserve = 0;

  constructor(
    kernel: Kernel,
    covered: ReadonlySet<string>,
    pids: ReadonlySet<number>,
    isRefilled: (path: string) => boolean,
  ) {
    this.#kernel = kernel;
    this.#isRefilled = isRefilled;
    this.#covered = covered;
    this.#pids = pids;
  }

  result(): CapturedTmpfs {
    return {
      files: {
        directoriesToMake: [...this.#directories.values()],
        filesToMake: this.#files,
        symlinksToMake: this.#symlinks,
        namesToMake: this.#names,
      },
      pidFiles: this.#pidFiles,
      problems: this.#problems,
    };
  }

  /** Walks one file system, by what of it is mounted. */
  fileSystem(points: readonly MountPoint[]): void {
    const [first] = points;
    if (first === undefined) return;
    const { path, mount } = first;
    // Somebody's many files on one file system must not be the loss of all others.
    this.#reserve = this.#room / 2;
    const keep: WalkedDirectory['keep'] = this.#isRefilled(path) ? 'pid-files' : 'all';
    this.#attempt(path, () => {
      const fileSystem = fileSystemOf(this.#kernel, mount.mnt_sb);
      const pending = points.map((point): WalkedDirectory => {
        const { mnt_root: dentry, address } = point.mount;
        const { d_inode: inode } = this.#kernel.bind(dentryStruct).at(dentry);
        return { path: point.path, dentry, inode, fileSystem, mount: address, keep, parent: undefined };
      });
      const above = new Set(pending.flatMap(({ dentry }) => inodesUpFrom(this.#kernel, dentry)));
      let isWhole = true;
      try {
        for (let at = pending.pop(); at !== undefined; at = pending.pop()) this.#directory(at, pending);
      } catch (error) {
        if (!(error instanceof OutOfRoom)) throw error;
        isWhole = false;
      }
      if (keep === 'all') this.#checkInodes(path, mount.mnt_sb, above, isWhole);
      else if (!isWhole) this.#problems.push(`${path}: has more files than the crash world has room for`);
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

  #spend(bytes: number): void {
    this.#room -= bytes;
    if (this.#room < this.#reserve) throw new OutOfRoom();
  }

  #directory(at: WalkedDirectory, pending: WalkedDirectory[]): void {
    let hidden = 0;
    this.#attempt(at.path, () => {
      for (const child of dentryChildren(this.#kernel, at.dentry, MAX_INODES)) {
        this.#spend(FILE_MODEL_BYTES);
        this.#met.set(child.d_inode, (this.#met.get(child.d_inode) ?? 0) + 1);
        if (at.keep === 'nothing') hidden++;
        this.#attempt(`a file in ${at.path}`, () => {
          const path = this.#pathOf(at, child);
          this.#attempt(path, () => this.#entry(path, child, at, pending));
        });
      }
    });
    if (hidden > 0) this.#problems.push(`${at.path}: ${hidden} files that a mount hid`);
  }

  #pathOf({ path }: WalkedDirectory, child: Dentry): string {
    const name = dentryName(this.#kernel, child);
    if (name === '.' || name === '..' || name.includes('/')) throw new VmcoreError('its name is none');
    const whole = `${path === '/' ? '' : path}/${requireWholePath(child.address, name)}`;
    if (Buffer.byteLength(whole) >= PATH_MAX) throw new VmcoreError('its path is too long');
    this.#spend(2 * whole.length);
    return whole;
  }

  #entry(path: string, child: Dentry, at: WalkedDirectory, pending: WalkedDirectory[]): void {
    const inode = this.#kernel.bind(inodeStruct).at(child.d_inode);
    const type = typeOf(inode.i_mode);
    if (type === fileType.directory) {
      const keep = this.#covered.has(placeKey(at.mount, child.address)) ? 'nothing' : at.keep;
      const directory = { ...at, path, dentry: child.address, inode: inode.address, keep, parent: at };
      if (at.keep === 'all') this.#keepDirectory(directory);
      pending.push(directory);
    } else if (at.keep === 'all') {
      this.#file(path, inode, type, at.fileSystem);
    } else if (at.keep === 'pid-files' && type === fileType.regular) {
      this.#pidFile(path, inode, at);
    }
  }

  #keepDirectory({ path, inode, fileSystem }: WalkedDirectory): void {
    const { i_mode, i_uid: uid, i_gid: gid } = this.#kernel.bind(inodeStruct).at(inode);
    const attributes = attributesOf(this.#kernel, fileSystem, inode);
    this.#spend(attributes.reduce((sum, { value }) => sum + 2 * value.length, 0));
    this.#directories.set(inode, { path, mode: permissionsOf(i_mode), uid, gid, attributes });
  }

  #file(path: string, inode: Inode, type: number, fileSystem: FileSystem): void {
    const first = this.#paths.get(inode.address);
    if (first !== undefined) {
      this.#names.push({ path, of: first });
      return;
    }
    switch (type) {
      case fileType.regular:
      case fileType.fifo:
        this.#files.push(this.#fileToMake(path, inode, type, fileSystem));
        this.#paths.set(inode.address, path);
        return;
      case fileType.symlink: {
        const target = shmemSymlink(this.#kernel, inode);
        if (!isUtf8(target)) throw new VmcoreError('it leads to a name that is not UTF-8');
        this.#spend(target.length);
        this.#symlinks.push({ path, target: target.toString('utf8'), uid: inode.i_uid, gid: inode.i_gid });
        this.#paths.set(inode.address, path);
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
    const lost = cache?.lost;
    if (lost !== undefined) throw new VmcoreError(`${lost.pages} of its pages are in swap: ${lost.why}`);
    const attributes = attributesOf(kernel, fileSystem, inode.address);
    const runs = within(cache?.runs ?? listedRuns([]), inode.i_size);
    this.#spend(EXTENT_MODEL_BYTES * extentsOf(runs));
    this.#spend(attributes.reduce((sum, { value }) => sum + 2 * value.length, 0));
    const { accessedMicroseconds, modifiedMicroseconds } = inodeTimes(kernel, inode.address);
    const identity = identityOf(inode, fileSystem);
    return { path, identity, accessedMicroseconds, modifiedMicroseconds, attributes, runs };
  }

  #pidFile(path: string, inode: Inode, at: WalkedDirectory): void {
    if (inode.i_size <= 0 || inode.i_size > PID_FILE_BYTES) return;
    const file = this.#fileToMake(path, inode, fileType.regular, at.fileSystem);
    const [run] = file.runs;
    if (run === undefined) return;
    const text = contentOf(this.#kernel).withView(run.physical, inode.i_size, (bytes) =>
      Buffer.from(bytes).toString('latin1'),
    );
    const pid = Number(/^\s*(\d+)\s*?(\n|$)/.exec(text)?.[1]);
    if (!this.#pids.has(pid)) return;
    const above: WalkedDirectory[] = [];
    for (let up = at; up.parent !== undefined; up = up.parent) above.unshift(up);
    for (const directory of above) this.#keepDirectory(directory);
    this.#files.push(file);
    this.#pidFiles.push({ path, pid });
  }

  /**
   * The second source: every inode of the file system must have been met under as many names as it counts.
   */
  #checkInodes(path: string, superBlock: bigint, above: ReadonlySet<bigint>, isWhole: boolean): void {
    const { s_inodes } = this.#kernel.bind(superBlockStruct).at(superBlock);
    const Inode = this.#kernel.bind(inodeStruct);
    let lost = 0;
    let names = 0;
    for (const inode of listForEachEntry(this.#kernel, s_inodes, Inode, 'i_sb_list', MAX_INODES)) {
      const { address, i_nlink, i_mode } = inode;
      if (i_nlink === 0 || above.has(address)) continue;
      const met = this.#met.get(address) ?? 0;
      if (met === 0) lost++;
      else if (typeOf(i_mode) !== fileType.directory) names += Math.max(0, i_nlink - met);
    }
    const why = isWhole ? 'are in no directory' : 'are more than the crash world has room for';
    if (lost > 0) this.#problems.push(`${path}: ${lost} files ${why}`);
    if (names > 0) this.#problems.push(`${path}: ${names} other names of files ${why}`);
  }
}
