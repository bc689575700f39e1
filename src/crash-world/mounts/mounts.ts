import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dentryStruct } from '../../linux/dcache.ts';
import { inodeStruct, superBlockStruct } from '../../linux/fs.ts';
import { type MountPoint, readMounts } from '../../linux/readers/mount-table.ts';
import { shmemSbInfo } from '../../linux/shmem.ts';
import { permissionsOf } from '../../system/file-mode.ts';
import { mountEntries } from '../../system/mountinfo.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { messageOf } from '../../system/thrown.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import {
  limitTmpfs,
  makeReadOnly,
  mountTmpfs,
  restrictMount,
  type TmpfsFlags,
  wasReadOnly,
} from './tmpfs-mount.ts';

/** A tmpfs of the dead world, empty again. */
export interface TmpfsMount {
  readonly path: string;
  /** Size, mode and owner, as mount(2) takes them. */
  readonly data: string;
  readonly flags: TmpfsFlags;
}

/** Mount points of the crash world. @param mountinfo text of its /proc/self/mountinfo, read as latin1 */
export function mountedPaths(
  mountinfo: string = readFileSync('/proc/self/mountinfo', 'latin1'),
): Set<string> {
  return new Set(mountEntries(mountinfo).map(({ path }) => path));
}

/** systemd makes these anew for each service and each boot; nobody who is restored has them open. */
const EPHEMERAL = /^\/run\/credentials\//;

/** Where the dead world had its tmpfs. */
export interface TmpfsPoints {
  /** Mounts that show their file system from its root. */
  readonly points: readonly MountPoint[];
  /** These and all other mounts. */
  readonly mounts: readonly MountPoint[];
  /** What cannot be read. */
  readonly problems: readonly string[];
}

/** Throws a VmcoreError if no mount can be read. */
export function tmpfsPoints(kernel: Kernel): TmpfsPoints {
  const { points: mounts, problems } = readMounts(kernel);
  const unreadable = [...problems];
  const candidates = mounts.filter(({ type, path }) => type === 'tmpfs' && !EPHEMERAL.test(path));
  const points = candidates.filter(({ path, mount }) => {
    try {
      return isWholeFileSystem(kernel, mount);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      unreadable.push(`tmpfs on ${path}: ${error.message}`);
      return false;
    }
  });
  return { points, mounts, problems: unreadable };
}

/**
 * The tmpfs mounts of the dead world (`/tmp`, `/run/user/UID` ...), with size, mode, owner and flags of then:
 * what is restored has to find its files and sockets where they were, and the system's own mount units leave
 * alone what is mounted already. With them, what cannot be read. Throws a VmcoreError if no mount can be.
 */
function oldTmpfsMounts(kernel: Kernel): { mounts: TmpfsMount[]; problems: string[] } {
  const { points, problems: unreadable } = tmpfsPoints(kernel);
  const problems = [...unreadable];
  const mounts = points.flatMap((point): TmpfsMount[] => {
    try {
      const superBlock = kernel.bind(superBlockStruct).at(point.mount.mnt_sb).s_flags.low;
      const flags = { mount: point.mount.mnt_flags, superBlock };
      return [{ path: point.path, data: tmpfsData(kernel, point), flags }];
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      problems.push(`tmpfs on ${point.path}: ${error.message}`);
      return [];
    }
  });
  return { mounts, problems };
}

function isWholeFileSystem(kernel: Kernel, mount: MountPoint['mount']): boolean {
  return kernel.bind(superBlockStruct).at(mount.mnt_sb).s_root === mount.mnt_root;
}

function tmpfsData(kernel: Kernel, { mount }: MountPoint): string {
  const root = kernel.bind(dentryStruct).at(mount.mnt_root);
  const inode = kernel.bind(inodeStruct).at(root.d_inode);
  const info = kernel.bind(superBlockStruct).at(mount.mnt_sb).s_fs_info;
  const { max_blocks, max_inodes } = kernel.bind(shmemSbInfo).at(info);
  return [
    `mode=${permissionsOf(inode.i_mode).toString(8).padStart(4, '0')}`,
    `uid=${inode.i_uid}`,
    `gid=${inode.i_gid}`,
    `size=${max_blocks * PAGE_SIZE}`,
    `nr_inodes=${max_inodes}`,
  ].join(',');
}

/**
 * Longest time for all file systems of /etc/fstab; one that waits for a device that never comes must not stop
 * the rest.
 */
const MOUNT_MILLISECONDS = 60_000;

/**
 * Mounts the file systems of /etc/fstab that are not mounted yet, but for those of the network, which is not
 * there.
 * @returns what could not be mounted, with the reason
 */
export function mountFileSystems(): string[] {
  const { status, stderr, error } = spawnSync('mount', ['-a', '-O', 'no_netdev'], {
    encoding: 'utf8',
    timeout: MOUNT_MILLISECONDS,
  });
  return status === 0 ? [] : [`mount -a: ${stderr?.trim() || error?.message || 'failed'}`];
}

/** The crash world's own programs lie below it. */
const OWN = '/run';

/** What became of mounts. */
interface Mounted {
  /** With which it worked. */
  readonly mounts: readonly TmpfsMount[];
  /** What did not work, with the reason. */
  readonly problems: readonly string[];
}

/** Does something for each mount. */
function forEachMount(mounts: readonly TmpfsMount[], step: (mount: TmpfsMount) => void): Mounted {
  const done: TmpfsMount[] = [];
  const problems: string[] = [];
  for (const mount of mounts) {
    try {
      step(mount);
      done.push(mount);
    } catch (error) {
      problems.push(`tmpfs on ${mount.path}: ${messageOf(error)}`);
    }
  }
  return { mounts: done, problems };
}

/**
 * Mounts every tmpfs that the dead world had. One that is there already (/dev/shm) gets the limits of then,
 * because its own are those of a crash kernel's little memory, and allows no more than it did. All can be
 * written to until `protectOldTmpfs`.
 * @returns those that are mounted, and what could not be, with the reason
 */
export function mountOldTmpfs(kernel: Kernel): Mounted {
  const { mounts, problems } = readTmpfsMounts(kernel);
  const mounted = mountEach(mounts);
  return { mounts: mounted.mounts, problems: [...problems, ...mounted.problems] };
}

/** Mounts each that is not mounted yet, and sets limits and flags of those that are; see `mountOldTmpfs`. */
export function mountEach(mounts: readonly TmpfsMount[]): Mounted {
  const paths = mountedPaths();
  const there = mounts.filter(({ path }) => paths.has(path));
  const missing = mounts.filter(({ path }) => !paths.has(path));
  const limited = forEachMount(there, ({ path, data, flags }) => {
    limitTmpfs(path, data);
    if (path !== OWN) restrictMount(path, flags);
  });
  const mounted = forEachMount(missing, ({ path, data, flags }) => mountTmpfs(path, data, flags));
  return {
    mounts: [...there, ...mounted.mounts],
    problems: [...limited.problems, ...mounted.problems],
  };
}

/**
 * Makes those read-only that were. To be called when their files are made.
 * @param mounts that are mounted: at the path of another there may be something else
 * @returns what could not be made read-only, with the reason
 */
export function protectOldTmpfs(mounts: readonly TmpfsMount[]): readonly string[] {
  const readOnly = mounts.filter(({ path, flags }) => path !== OWN && wasReadOnly(flags));
  return forEachMount(readOnly, ({ path, flags }) => makeReadOnly(path, flags)).problems;
}

/** Without any mount that can be read the processes whose files were on one are found out by their files. */
function readTmpfsMounts(kernel: Kernel): { mounts: TmpfsMount[]; problems: string[] } {
  try {
    return oldTmpfsMounts(kernel);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { mounts: [], problems: [`the mounts of the dead system: ${error.message}`] };
  }
}
