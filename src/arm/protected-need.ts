import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { protectedBytes } from './memory-need.ts';

/** A process and the one that made it, or took it over. */
export interface Parented {
  readonly pid: number;
  readonly parent: number;
}

/** Processes and all their descendants: what comes back together. */
export function withDescendants(pids: readonly number[], all: readonly Parented[]): Set<number> {
  const children = Map.groupBy(all, ({ parent }) => parent);
  const family = new Set<number>();
  const waiting = [...pids];
  for (let pid = waiting.pop(); pid !== undefined; pid = waiting.pop()) {
    if (family.has(pid)) continue;
    family.add(pid);
    waiting.push(...(children.get(pid) ?? []).map((child) => child.pid));
  }
  return family;
}

/** Field 4 of /proc/PID/stat, for every process that there is. */
export function liveParents(proc = '/proc'): Parented[] {
  return readdirSync(proc)
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const stat = ifThere(() => readFileSync(join(proc, name, 'stat'), 'latin1')) ?? '';
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      return Number.isInteger(parent) ? [{ pid: Number(name), parent }] : [];
    });
}

/**
 * What the crash world needs for processes that are protected and for their descendants, as they are now.
 * @param pids those that the rules name
 * @returns bytes
 */
export function protectedNeed(pids: readonly number[], proc = '/proc'): number {
  const family = [...withDescendants(pids, liveParents(proc))];
  return protectedBytes(
    family.map((pid) => ({
      areas: ifThere(() => readFileSync(join(proc, String(pid), 'maps'), 'latin1'))?.split('\n').length ?? 1,
      threads: entries(proc, pid, 'task'),
      descriptors: entries(proc, pid, 'fd'),
    })),
  );
}

function entries(proc: string, pid: number, directory: string): number {
  return ifThere(() => readdirSync(join(proc, String(pid), directory)))?.length ?? 0;
}

/** Undefined for a process that has ended meanwhile. */
function ifThere<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined;
    throw error;
  }
}
