import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { systemPlace } from '../config/unit-place.ts';
import type { Candidate } from './select.ts';

/** Restored processes of one systemd service, to be taken up by it. */
export interface UnitAdoption {
  readonly kind: 'unit';
  readonly unit: string;
  /** The unit's main process: what systemd watches and restarts. */
  readonly mainPid: number;
  /** All of its processes with the cgroups that they were in. */
  readonly processes: readonly { readonly pid: number; readonly cgroup: string }[];
}

/** Restored processes that belong to no service: they get a scope of ours. */
export interface ScopeAdoption {
  readonly kind: 'scope';
  readonly unit: string;
  readonly processes: readonly { readonly pid: number; readonly cgroup: string }[];
}

export type Adoption = UnitAdoption | ScopeAdoption;

/** Slice of the scopes. */
export const SLICE = 'otherworld.slice';

/**
 * The system service that a cgroup belongs to; undefined for sessions, user managers and what is outside systemd's tree. What a container
 * has below its own cgroup is not the system's, whatever its name.
 * @param path as in /proc/PID/cgroup
 */
export function serviceOf(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  const { slices, unit } = systemPlace(path);
  return slices[0] !== 'user.slice' && unit?.endsWith('.service') ? unit : undefined;
}

/** Directories in which systemd looks for units that outlive a boot (systemd.unit(5)). */
const UNIT_DIRECTORIES = [
  '/etc/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** Whether a unit, or the template that it is made from, is installed; transient units (systemd-run) are not. */
export function isInstalled(unit: string, directories: readonly string[] = UNIT_DIRECTORIES): boolean {
  const template = unit.replace(/@.*(\.[a-z]+)$/, '@$1');
  return directories.some(
    (directory) => existsSync(join(directory, unit)) || existsSync(join(directory, template)),
  );
}

/** The scope of a group that no service takes up. */
function scopeOf(group: number): { unit: string; cgroup: string } {
  const unit = `otherworld-${group}.scope`;
  return { unit, cgroup: `/${SLICE}/${unit}` };
}

/** The cgroup in which a group is restored: its first process's own, if a service will want it there. */
export function birthplace(
  group: number,
  cgroup: string | undefined,
  installed: (unit: string) => boolean = isInstalled,
): string {
  const unit = serviceOf(cgroup);
  return cgroup !== undefined && unit !== undefined && installed(unit) ? cgroup : scopeOf(group).cgroup;
}

/**
 * Who takes up the restored processes. A service takes up its processes if all that it had are back; with any of them missing it is
 * not the service that it was: then systemd starts it afresh, and what did come back goes to a scope, one for each group.
 * @param restored each group that was restored: all its processes, and those that are still there
 * @param candidates all processes of the dead world
 */
export function planAdoptions(
  restored: readonly {
    readonly group: number;
    readonly members: readonly number[];
    readonly pids: readonly number[];
  }[],
  candidates: readonly Candidate[],
  installed: (unit: string) => boolean = isInstalled,
): Adoption[] {
  const back = new Set(restored.flatMap(({ members }) => members));
  const alive = new Set(restored.flatMap(({ pids }) => pids));
  const units = new Map<string, Candidate[]>();
  for (const candidate of candidates) {
    const unit = serviceOf(candidate.cgroup);
    if (unit !== undefined) units.set(unit, [...(units.get(unit) ?? []), candidate]);
  }
  const adoptions: Adoption[] = [];
  const taken = new Set<number>();
  for (const [unit, members] of units) {
    const main = mainProcess(members);
    const isWhole = members.every(({ pid }) => back.has(pid)) && alive.has(main.pid);
    if (!isWhole || !installed(unit)) continue;
    const processes = members.filter(({ pid }) => alive.has(pid));
    for (const { pid } of processes) taken.add(pid);
    adoptions.push({ kind: 'unit', unit, mainPid: main.pid, processes: processes.map(placeOf) });
  }
  for (const { group, pids } of restored) {
    const rest = pids.filter((pid) => !taken.has(pid));
    if (rest.length === 0) continue;
    const { unit, cgroup } = scopeOf(group);
    adoptions.push({ kind: 'scope', unit, processes: rest.map((pid) => ({ pid, cgroup })) });
  }
  return adoptions;
}

function placeOf({ pid, cgroup }: Candidate): { pid: number; cgroup: string } {
  return { pid, cgroup: cgroup ?? '/' };
}

/** The oldest of the processes whose parent is outside the unit: the one that systemd started. */
function mainProcess(members: readonly Candidate[]): Candidate {
  const pids = new Set(members.map(({ pid }) => pid));
  const roots = members.filter(({ parentPid }) => !pids.has(parentPid));
  return (roots.length > 0 ? roots : members).reduce((first, other) =>
    other.startTicks < first.startTicks ? other : first,
  );
}
