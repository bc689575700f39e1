import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf } from './thrown.ts';

/** What /proc/PID/stat says of a process of the running kernel. */
export interface ProcessStat {
  /** The name that the kernel knows it by. */
  readonly comm: string;
  /** A letter: `Z` is a zombie, `X` one that is being taken away. */
  readonly state: string;
  readonly isZombie: boolean;
  /** The process that made it, or took it over. */
  readonly parent: number;
  /** Start time in USER_HZ ticks since boot: with the pid it names one process for good. */
  readonly startTicks: number;
}

/** Fields 2, 3, 4 and 22 of the text of a /proc/PID/stat (proc(5)); the name may hold blanks and brackets. */
export function parseStat(text: string): ProcessStat {
  const end = text.lastIndexOf(')');
  const [state = '', ...fields] = text.slice(end + 2).split(' ');
  return {
    comm: text.slice(text.indexOf('(') + 1, end),
    state,
    isZombie: state === 'Z',
    parent: Number(fields[0]),
    startTicks: Number(fields[18]),
  };
}

/** Reads a /proc/PID/stat, the name byte by byte (latin1). @returns undefined if there is no such process */
export function processStat(pid: number, proc = '/proc'): ProcessStat | undefined {
  const text = ifThere(() => readFileSync(join(proc, String(pid), 'stat'), 'latin1'));
  return text === undefined ? undefined : parseStat(text);
}

/**
 * The path of a process's cgroup in the version 2 hierarchy; undefined if there is no such process, or
 * hierarchy.
 */
export function cgroupOf(pid: number | 'self', proc = '/proc'): string | undefined {
  const text = ifThere(() => readFileSync(join(proc, String(pid), 'cgroup'), 'utf8'));
  return text === undefined ? undefined : /^0::(.*)$/m.exec(text)?.[1];
}

/** The numbers of all processes that there are. */
export function processNumbers(proc = '/proc'): number[] {
  return readdirSync(proc)
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/**
 * What is read of a process in /proc; undefined if nobody has the number (ENOENT), or the process has ended
 * between the opening of its file and the reading (ESRCH). Throws the file system's other errors.
 */
export function ifThere<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return undefined;
    throw error;
  }
}
