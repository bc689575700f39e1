import { closeSync, constants, openSync } from 'node:fs';
import { checked, libcFunction } from './libc.ts';

const CLONE_NEWNS = 0x20000;
const CLONE_FS = 0x200;

const unshare = libcFunction<[flags: number]>('int unshare(int flags)');
const setns = libcFunction<[fd: number, type: number]>('int setns(int fd, int nstype)');

/** A mount namespace may be entered only by a thread that shares its directories with no other (setns(2)). */
let hasOwnDirectories = false;

/**
 * Does something in the mount namespace of another process: paths are those that the process sees, and so are
 * those of programs that are started. Other threads of this program stay where they are, so `use` must be
 * done when it returns. Throws a SystemCallError if the namespace cannot be entered, or left again.
 */
export function inMountNamespaceOf<T>(pid: number, use: () => T): T {
  if (!hasOwnDirectories) checked('unshare', unshare(CLONE_FS));
  hasOwnDirectories = true;
  const own = openSync('/proc/thread-self/ns/mnt', constants.O_RDONLY);
  try {
    const other = openSync(`/proc/${pid}/ns/mnt`, constants.O_RDONLY);
    try {
      checked('setns', setns(other, CLONE_NEWNS));
    } finally {
      closeSync(other);
    }
    try {
      return use();
    } finally {
      checked('setns', setns(own, CLONE_NEWNS));
    }
  } finally {
    closeSync(own);
  }
}
