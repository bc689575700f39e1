import { Tracee } from './tracee.ts';

/** Where the processes of a group are frozen, and how one of them gets out of there for a moment. */
export interface Freezer {
  /** The process is no longer frozen when this returns. */
  takeOut(pid: number): void;
  /** The process is frozen again. */
  putBack(pid: number): void;
  /** Waits until all of them are at rest: what has to stop has stopped, and has told its parent. */
  frozen(): Promise<void>;
}

/**
 * Has a frozen process do what only it can do to itself. Throws if it cannot be held, made to do it, or
 * frozen again; it may then have its signals blocked, be in the middle of a call, or run.
 */
export function whileHeld<T>(pid: number, freezer: Freezer, use: (tracee: Tracee) => T): T {
  const tracee = new Tracee(pid);
  try {
    freezer.takeOut(pid);
    return use(tracee);
  } finally {
    try {
      freezer.putBack(pid);
    } finally {
      tracee.release();
    }
  }
}
