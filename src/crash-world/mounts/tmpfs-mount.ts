import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { O_PATH } from '../../system/file-calls.ts';
import { mount } from '../../system/mount.ts';
import { codeOf } from '../../system/thrown.ts';

const DIRECTORY = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** MNT_* of include/linux/mount.h, MS_* of mount(2), and the name of mount(8). */
const MOUNT_FLAGS = [
  { mnt: 0x01, ms: 1 << 1, name: 'nosuid' },
  { mnt: 0x02, ms: 1 << 2, name: 'nodev' },
  { mnt: 0x04, ms: 1 << 3, name: 'noexec' },
  { mnt: 0x80, ms: 1 << 8, name: 'nosymfollow' },
  { mnt: 0x08, ms: 1 << 10, name: 'noatime' },
  { mnt: 0x10, ms: 1 << 11, name: 'nodiratime' },
  { mnt: 0x20, ms: 1 << 21, name: 'relatime' },
] as const;
/** Flags that take rights away. */
const RESTRICTIONS: readonly string[] = ['nosuid', 'nodev', 'noexec', 'nosymfollow'];
const MNT_READONLY = 0x40;
/** Neither MNT_NOATIME nor MNT_RELATIME. */
const MNT_ATIME = 0x28;
const MS_STRICTATIME = 1 << 24;
/** SB_* of include/linux/fs.h, which are MS_* as well: synchronous, dirsync, lazytime. */
const SUPER_BLOCK_FLAGS = (1 << 4) | (1 << 7) | (1 << 25);
const SB_RDONLY = 1;

/** How a tmpfs of the dead world was mounted. */
export interface TmpfsFlags {
  /** `mnt_flags` of the mount. */
  readonly mount: number;
  /** `s_flags` of the file system. */
  readonly superBlock: number;
}

/**
 * Opens a directory (O_PATH) of which no component is a symbolic link; those that are missing are made.
 * Throws the file system's error: ENOTDIR for a link.
 */
export function openPlainDirectory(path: string): number {
  let fd = openSync('/', DIRECTORY);
  for (const name of path.split('/').filter(Boolean)) {
    const parent = fd;
    try {
      fd = openOrMake(`/proc/self/fd/${parent}/${name}`);
    } finally {
      closeSync(parent);
    }
  }
  return fd;
}

function openOrMake(path: string): number {
  try {
    return openSync(path, DIRECTORY);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  mkdirSync(path);
  return openSync(path, DIRECTORY);
}

/**
 * Mounts a new tmpfs at a path that leads through no symbolic link, with all flags of then but those that
 * make it read-only: its files are made first.
 *
 * @param data as mount(2) takes it for tmpfs: `size=4096,mode=1777`
 * @throws the file system's error, or a SystemCallError of mount(2)
 */
export function mountTmpfs(path: string, data: string, flags: TmpfsFlags): void {
  const own = MOUNT_FLAGS.filter(({ mnt }) => (flags.mount & mnt) !== 0).reduce((sum, { ms }) => sum | ms, 0);
  const times = (flags.mount & MNT_ATIME) === 0 ? MS_STRICTATIME : 0;
  const fd = openPlainDirectory(path);
  try {
    const target = `/proc/self/fd/${fd}`;
    mount('tmpfs', target, 'tmpfs', own | times | (flags.superBlock & SUPER_BLOCK_FLAGS), data);
  } finally {
    closeSync(fd);
  }
}

function remount(path: string, options: readonly string[]): void {
  execFileSync('mount', ['-o', ['remount', ...options].join(), '--', path], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}

/** Gives a tmpfs that is mounted the limits of then. Throws an Error if that fails. */
export function limitTmpfs(path: string, data: string): void {
  remount(
    path,
    data.split(',').filter((option) => /^(size|nr_inodes)=/.test(option)),
  );
}

/** Takes away from what is mounted what the mount of then did not allow. Throws an Error if that fails. */
export function restrictMount(path: string, { mount }: TmpfsFlags): void {
  const names = MOUNT_FLAGS.filter(({ mnt, name }) => (mount & mnt) !== 0 && RESTRICTIONS.includes(name)).map(
    ({ name }) => name,
  );
  if (names.length > 0) remount(path, ['bind', ...names]);
}

/** Whether nothing could be written to the mount. */
export function wasReadOnly({ mount, superBlock }: TmpfsFlags): boolean {
  return (mount & MNT_READONLY) !== 0 || (superBlock & SB_RDONLY) !== 0;
}

/**
 * Makes a mount read-only that was, in the way that it was. Throws an Error if that fails: somebody has a
 * file open for writing.
 */
export function makeReadOnly(path: string, { superBlock }: TmpfsFlags): void {
  remount(path, (superBlock & SB_RDONLY) !== 0 ? ['ro'] : ['bind', 'ro']);
}
