import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cgroupOf } from '../../system/proc.ts';
import { codeOf, messageOf } from '../../system/thrown.ts';

/** Where cgroup v2 is mounted. */
const CGROUPS = '/sys/fs/cgroup';
/** Above the cgroups of all restores; the crash world's init ends what is left in it. */
const PARENT = 'otherworld-restore';
const ROOT = '/';

const POLL_MILLISECONDS = 5;
/** Neither ending nor freezing waits for anything but the kernel. */
const LIMIT_MILLISECONDS = 10_000;

let count = 0;

/**
 * Moves a process, whole, into a cgroup, which is made if it is not there; 0 is the process that asks.
 *
 * @param cgroup as in /proc/PID/cgroup
 * @throws the file system's error; ESRCH if the process has ended
 */
export function moveTo(pid: number, cgroup: string, mount: string = CGROUPS): void {
  const directory = join(mount, cgroup);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'cgroup.procs'), String(pid));
}

/**
 * Kills all processes of a cgroup; does nothing if there is no such cgroup.
 *
 * @param cgroup as in /proc/PID/cgroup
 */
export function killAllOf(cgroup: string, mount: string = CGROUPS): void {
  try {
    // Never makes the file: without the cgroup there is none.
    writeFileSync(join(mount, cgroup, 'cgroup.kill'), '1', { flag: 'r+' });
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

/** The cgroup of this process in the unified hierarchy. */
function ownCgroup(): string {
  return cgroupOf('self') ?? ROOT;
}

/**
 * The cgroup (v2) of one restore. CRIU starts in it, and so does whatever CRIU starts: restored processes,
 * the fabricated root, helpers. All of them can be ended at once, whoever they are. Before the restored ones
 * would run, CRIU is moved aside and the others are frozen: they stay so when CRIU has let go of them and
 * ended.
 */
export class RestoreCgroup {
  readonly #mount: string;
  readonly #path: string;
  readonly #home = ownCgroup();

  /** Throws an Error where no cgroup can be made. */
  constructor(mount: string = CGROUPS) {
    this.#mount = mount;
    this.#path = join(mount, PARENT, `${process.pid}-${count++}`);
    if (!existsSync(join(mount, 'cgroup.procs'))) throw new Error(`${mount} is no cgroup v2 file system`);
    for (const part of [this.#criu, this.#processes]) mkdirSync(part, { recursive: true });
  }

  /** All processes of the restore are in it or below. */
  get directory(): string {
    return this.#path;
  }

  /** CRIU's own processes, from the time when the others are frozen. */
  get #criu(): string {
    return join(this.#path, 'criu');
  }

  get #processes(): string {
    return join(this.#path, 'processes');
  }

  /**
   * Calls `start`; the processes that it starts begin in this cgroup, this program goes back to where it was.
   */
  startIn<T>(start: () => T): T {
    writeFileSync(join(this.#processes, 'cgroup.procs'), '0');
    try {
      return start();
    } finally {
      moveTo(0, this.#home, this.#mount);
    }
  }

  /** Freezes all processes but `criu`, which go on. */
  freeze(criu: readonly number[]): void {
    for (const pid of criu) writeFileSync(join(this.#criu, 'cgroup.procs'), String(pid));
    writeFileSync(join(this.#processes, 'cgroup.freeze'), '1');
  }

  /** Waits until every frozen process is at rest. Throws an Error if one does not come to it. */
  async frozen(): Promise<void> {
    if (!(await this.#becomes(this.#processes, 'frozen 1')))
      throw new Error('its processes cannot be stopped');
  }

  /** Lets one of the frozen processes run, where CRIU's own were. */
  takeOut(pid: number): void {
    writeFileSync(join(this.#criu, 'cgroup.procs'), String(pid));
  }

  /** Freezes it again. */
  putBack(pid: number): void {
    writeFileSync(join(this.#processes, 'cgroup.procs'), String(pid));
  }

  /** The processes in here that are not CRIU's; those that have ended are not among them. */
  members(): number[] {
    return readFileSync(join(this.#processes, 'cgroup.procs'), 'latin1')
      .split('\n')
      .filter(Boolean)
      .map(Number);
  }

  /**
   * Lets the processes run on, each in `cgroup`, so that what they fork begins there too; where that is not
   * possible, in the root's. To be called when CRIU has ended. They run when this returns, whatever else goes
   * wrong.
   *
   * @param cgroup as in /proc/PID/cgroup; without one, where this program is
   * @returns a sentence for each process that is in another place now, and if this cgroup cannot be removed
   */
  release(cgroup: string = this.#home): string[] {
    const notes = this.members().flatMap((pid) => this.#moveOut(pid, cgroup));
    writeFileSync(join(this.#processes, 'cgroup.freeze'), '0');
    try {
      this.#remove();
      return notes;
    } catch (error) {
      return [...notes, `the cgroup ${this.#path} cannot be removed: ${messageOf(error)}`];
    }
  }

  /**
   * Puts each process into a cgroup of its own, where it runs on at once, the others after it. Throws an
   * Error if one of them cannot be put there: it and those after it are still held.
   *
   * @param placeOf as in /proc/PID/cgroup
   */
  moveInto(placeOf: (pid: number) => string): void {
    for (const pid of this.members()) {
      try {
        moveTo(pid, placeOf(pid), this.#mount);
      } catch (error) {
        // It has ended.
        if (codeOf(error) === 'ESRCH') continue;
        throw new Error(`process ${pid} cannot be moved to ${placeOf(pid)}: ${messageOf(error)}`, {
          cause: error,
        });
      }
    }
  }

  /** A process that has ended is in no place. */
  #moveOut(pid: number, cgroup: string): string[] {
    try {
      moveTo(pid, cgroup, this.#mount);
      return [];
    } catch (error) {
      if (codeOf(error) === 'ESRCH') return [];
      const problem = `process ${pid} is not in cgroup ${cgroup}: ${messageOf(error)}`;
      return cgroup === ROOT ? [problem] : [problem, ...this.#moveOut(pid, ROOT)];
    }
  }

  /** Kills everything in the cgroup; does not wait. */
  kill(): void {
    writeFileSync(join(this.#path, 'cgroup.kill'), '1');
  }

  /**
   * Kills everything in the cgroup, waits until it has ended and removes the cgroup. Throws an Error if
   * something does not end.
   */
  async end(): Promise<void> {
    this.kill();
    if (!(await this.#becomes(this.#path, 'populated 0'))) {
      throw new Error(`processes of the restore do not end: ${this.members().join(', ')}`);
    }
    this.#remove();
  }

  async #becomes(directory: string, state: string): Promise<boolean> {
    const start = performance.now();
    for (;;) {
      if (readFileSync(join(directory, 'cgroup.events'), 'latin1').split('\n').includes(state)) return true;
      if (performance.now() - start > LIMIT_MILLISECONDS) return false;
      await sleep(POLL_MILLISECONDS);
    }
  }

  #remove(): void {
    for (const part of [this.#criu, this.#processes, this.#path]) rmdirSync(part);
    try {
      rmdirSync(join(this.#mount, PARENT));
    } catch (error) {
      // Others are restoring.
      if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EBUSY' && codeOf(error) !== 'ENOENT')
        throw error;
    }
  }
}
