import { closeSync, constants, existsSync, fstatSync, mkdirSync, openSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { errnoText } from './errno.ts';
import { libcFunction } from './libc.ts';
import { StateError } from './state-error.ts';
import { ownershipProblem } from './trusted-path.ts';

const flock = libcFunction<[fd: number, operation: number]>('int flock(int fd, int operation)');
const { errno } = osConstants;
const LOCK_EX = 2;
const LOCK_NB = 4;
const TRY_AGAIN_MILLISECONDS = 20;

/**
 * Opens a directory, not through a link, that nobody but root, or whoever runs this, can write to. @throws
 * StateError
 */
export function openOwnDirectory(directory: string): number {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  const problem = ownershipProblem(fstatSync(fd));
  if (problem === undefined) return fd;
  closeSync(fd);
  throw new StateError(
    `${directory} ${problem}, and root relies on what is in it: look who wrote it, then chown root and chmod 700`,
  );
}

/** How long to wait for a lock, and what to do when it turns out that there is somebody to wait for. */
export interface Patience {
  readonly timeoutSeconds?: number;
  readonly onWait?: () => void;
}

/**
 * Locks a directory of ours against other processes of ours that do the same; it is made (mode 0700) if it is
 * not there. The lock is the kernel's (flock(2) on the directory itself): when its holder dies, however, it
 * is free, and there is no file to be left behind. `using` ends it.
 * @throws StateError if somebody else holds it for longer than the patience (a minute), or the directory is
 * not ours alone
 */
export function lockDirectory(directory: string, { timeoutSeconds = 60, onWait }: Patience = {}): Disposable {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const fd = openOwnDirectory(directory);
  try {
    const end = performance.now() + timeoutSeconds * 1000;
    for (let tries = 0; !tryLock(fd, directory); tries++) {
      if (tries === 0) onWait?.();
      if (performance.now() > end) {
        throw new StateError(
          `another otherworld has been working on ${directory} for ${timeoutSeconds} s: let it end, or see who it is with fuser -v ${directory}`,
        );
      }
      pause(TRY_AGAIN_MILLISECONDS);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { [Symbol.dispose]: () => closeSync(fd) };
}

/** Whether somebody has locked the directory; `false` where it is not there. */
export function isLocked(directory: string): boolean {
  if (!existsSync(directory)) return false;
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return !tryLock(fd, directory);
  } finally {
    closeSync(fd);
  }
}

function tryLock(fd: number, directory: string): boolean {
  const result = flock(fd, LOCK_EX | LOCK_NB);
  if (result === -errno.EWOULDBLOCK || result === -errno.EINTR) return false;
  if (result < 0) throw new StateError(`${directory} cannot be locked (${errnoText(-result)})`);
  return true;
}

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
