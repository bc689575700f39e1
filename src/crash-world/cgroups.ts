import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const CGROUPS = '/sys/fs/cgroup';
const ROOT = '/';

/** Moves a process, whole, into a cgroup, which is made if it is not there; 0 is this process. */
function move(pid: number, cgroup: string): void {
  const directory = join(CGROUPS, cgroup);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'cgroup.procs'), String(pid));
}

/**
 * Runs something from within a cgroup, so that all processes that it starts begin there: what they fork before anybody can move them is in
 * the right place as well.
 */
export async function withinCgroup<T>(cgroup: string, run: () => Promise<T>): Promise<T> {
  move(0, cgroup);
  try {
    return await run();
  } finally {
    move(0, ROOT);
  }
}
