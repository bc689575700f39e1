import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What /proc/PID/stat says of a process of the running kernel. */
export interface ProcessStat {
  /** Start time in USER_HZ ticks since boot: with the pid it names one process for good. */
  readonly startTicks: number;
  readonly isZombie: boolean;
}

/**
 * Fields 3 and 22 of /proc/PID/stat (proc(5)); the command's name before them may hold blanks and brackets.
 * @returns undefined if there is no such process
 */
export function processStat(pid: number, proc = '/proc'): ProcessStat | undefined {
  const stat = readProc(join(proc, String(pid), 'stat'));
  if (stat === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { isZombie: fields[0] === 'Z', startTicks: Number(fields[19]) };
}

/** The path of a process's cgroup in the version 2 hierarchy; undefined if there is no such process. */
export function cgroupOf(pid: number, proc = '/proc'): string | undefined {
  return readProc(join(proc, String(pid), 'cgroup'))
    ?.split('\n')
    .find((line) => line.startsWith('0::'))
    ?.slice(3);
}

/** A process can end between the opening of its file and the reading (ESRCH). */
function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    const isGone = error instanceof Error && 'code' in error && ['ENOENT', 'ESRCH'].includes(`${error.code}`);
    if (!isGone) throw error;
    return undefined;
  }
}
