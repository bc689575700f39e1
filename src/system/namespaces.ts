import { closeSync, constants, openSync } from 'node:fs';
import { O_PATH } from './file-calls.ts';
import { checked, libcFunction } from './libc.ts';

const CLONE_FS = 0x200;
const CLONE_NEWNET = 0x4000_0000;
/** CLONE_NEW*, by the name of the namespace in /proc/PID/ns. */
const kinds = { mnt: 0x20000, uts: 0x0400_0000, ipc: 0x0800_0000 } as const;
type Kind = keyof typeof kinds;
const ALL: readonly Kind[] = ['mnt', 'uts', 'ipc'];

const unshare = libcFunction<[flags: number]>('int unshare(int flags)');
const fchdir = libcFunction<[fd: number]>('int fchdir(int fd)');
const chroot = libcFunction<[path: string]>('int chroot(const char *path)');
const setns = libcFunction<[fd: number, type: number]>('int setns(int fd, int nstype)');

/** A mount namespace may be entered only by a thread that shares its directories with no other (setns(2)). */
let hasOwnDirectories = false;

function leaveOthersTheirDirectories(): void {
  if (!hasOwnDirectories) checked('unshare', unshare(CLONE_FS));
  hasOwnDirectories = true;
}

/**
 * Does something in the mount, UTS and IPC namespaces of another process: paths are those that the process
 * sees, and so are those of programs that are started. Other threads of this program stay where they
 * are, so `use` must be done when it returns. Throws a SystemCallError if the namespaces cannot be entered,
 * or left again.
 * @param which of them
 */
export function inNamespacesOf<T>(pid: number, use: () => T, which: readonly Kind[] = ALL): T {
  leaveOthersTheirDirectories();
  const own = openAll('thread-self', which);
  try {
    const other = openAll(pid, which);
    try {
      enter(other);
      return use();
    } finally {
      enter(own);
      closeAll(other);
    }
  } finally {
    closeAll(own);
  }
}

/**
 * Does something with another directory as `/` and as the current one, for this thread alone: `use` must be
 * done when it returns. Throws a SystemCallError if that is not possible, or cannot be undone.
 */
export function withRoot<T>(directoryFd: number, use: () => T): T {
  leaveOthersTheirDirectories();
  const before = ['/', '.'].map((path) => openSync(path, O_PATH | constants.O_DIRECTORY));
  const [root = -1, current = -1] = before;
  const change = (fd: number): void => {
    checked('fchdir', fchdir(fd));
    checked('chroot', chroot('.'));
  };
  try {
    change(directoryFd);
    return use();
  } finally {
    try {
      change(root);
      checked('fchdir', fchdir(current));
    } finally {
      for (const fd of before) closeSync(fd);
    }
  }
}

/**
 * Does something in a new network namespace, where there is nothing but a loopback that is down. It lasts as
 * long as a socket that was made in it. Only this thread is there, so `use` must be done when it returns.
 * Throws a SystemCallError if there cannot be one, or it cannot be left again.
 */
export function inNewNetwork<T>(use: () => T): T {
  const own = openSync('/proc/thread-self/ns/net', constants.O_RDONLY);
  try {
    checked('unshare', unshare(CLONE_NEWNET));
    try {
      return use();
    } finally {
      checked('setns', setns(own, CLONE_NEWNET));
    }
  } finally {
    closeSync(own);
  }
}

type Namespace = readonly [fd: number, type: number];

function openAll(pid: number | 'thread-self', which: readonly Kind[]): Namespace[] {
  const opened: Namespace[] = [];
  try {
    for (const kind of which)
      opened.push([openSync(`/proc/${pid}/ns/${kind}`, constants.O_RDONLY), kinds[kind]]);
    return opened;
  } catch (error) {
    closeAll(opened);
    throw error;
  }
}

function enter(namespaces: readonly Namespace[]): void {
  for (const [fd, type] of namespaces) checked('setns', setns(fd, type));
}

function closeAll(namespaces: readonly Namespace[]): void {
  for (const [fd] of namespaces) closeSync(fd);
}
