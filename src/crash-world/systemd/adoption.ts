import { isInstalled, serviceOf } from '../../config/service-units.ts';
import type { Candidate } from '../processes/select.ts';

/** Restored processes of one systemd service, to be taken up by it. */
export interface UnitAdoption {
  readonly unit: string;
  /** The unit's main process: what systemd watches and restarts. */
  readonly mainPid: number;
  /** All of its processes, with the cgroup below the unit's own that each was in: `` or `/sub`. */
  readonly processes: readonly { readonly pid: number; readonly below: string }[];
}

/** Slice of the scopes. */
export const SLICE = 'otherworld.slice';

/** The scope of a group: it is restored there, and what no service takes up stays there. */
export function scopeOf(group: number): { readonly unit: string; readonly cgroup: string } {
  const unit = `otherworld-${group}.scope`;
  return { unit, cgroup: `/${SLICE}/${unit}` };
}

/**
 * Which services take up restored processes. A service takes up its processes if all that it had are back;
 * with any of them missing it is not the service that it was: then systemd starts it afresh, and what did
 * come back stays in the scopes of its groups.
 * @param restored each group that was restored: all its processes, and those that are still there
 * @param candidates all processes of the dead world
 */
export function planAdoptions(
  restored: readonly { readonly members: readonly number[]; readonly pids: readonly number[] }[],
  candidates: readonly Candidate[],
  installed: (unit: string) => boolean = isInstalled,
): UnitAdoption[] {
  const back = new Set(restored.flatMap(({ members }) => members));
  const alive = new Set(restored.flatMap(({ pids }) => pids));
  const units = new Map<string, Candidate[]>();
  for (const candidate of candidates) {
    const unit = serviceOf(candidate.cgroup);
    if (unit !== undefined) units.set(unit, [...(units.get(unit) ?? []), candidate]);
  }
  return [...units].flatMap(([unit, members]) => {
    const main = mainProcess(members);
    const isWhole = members.every(({ pid }) => back.has(pid)) && alive.has(main.pid);
    if (!isWhole || !installed(unit)) return [];
    const processes = members
      .filter(({ pid }) => alive.has(pid))
      .map(({ pid, cgroup }) => ({ pid, below: belowUnit(unit, cgroup) }));
    return [{ unit, mainPid: main.pid, processes }];
  });
}

/** `/sub` of `/system.slice/x.service/sub`. */
function belowUnit(unit: string, cgroup = ''): string {
  const parts = cgroup.split('/');
  return parts
    .slice(parts.indexOf(unit) + 1)
    .map((part) => `/${part}`)
    .join('');
}

/** The oldest of the processes whose parent is outside the unit: the one that systemd started. */
function mainProcess(members: readonly Candidate[]): Candidate {
  const pids = new Set(members.map(({ pid }) => pid));
  const roots = members.filter(({ parentPid }) => !pids.has(parentPid));
  return (roots.length > 0 ? roots : members).reduce((first, other) =>
    other.startTicks < first.startTicks ? other : first,
  );
}
