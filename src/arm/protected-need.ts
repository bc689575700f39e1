import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ifThere, processNumbers, processStat } from '../system/proc.ts';
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

/** Every process that there is, with its parent. */
export function liveParents(proc = '/proc'): Parented[] {
  return processNumbers(proc).flatMap((pid) => {
    const parent = processStat(pid, proc)?.parent;
    return parent === undefined ? [] : [{ pid, parent }];
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
