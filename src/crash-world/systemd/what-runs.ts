import type { IncidentReport } from '../../report/schema.ts';
import { cgroupOf, type ProcessStat, processStat } from '../../system/proc.ts';
import { scopeOf } from './adoption.ts';
import type { Handover } from './handover.ts';

type Groups = Handover['groups'];

/** How processes are looked at; another one for tests. */
export interface Looking {
  readonly stat: (pid: number) => Pick<ProcessStat, 'startTicks' | 'isZombie'> | undefined;
  readonly cgroup: (pid: number) => string | undefined;
}

export const looking: Looking = { stat: processStat, cgroup: cgroupOf };

/** The unit or scope that a cgroup belongs to, or, outside systemd's, the cgroup. */
export function unitOf(cgroup: string): string {
  return cgroup.split('/').find((part) => /\.(service|scope)$/.test(part)) ?? cgroup;
}

/**
 * Enters as restored the processes of which a resurrection that was broken off while it let them go did not
 * come to say so: nobody else is in the scope of their group, and who is in the cgroup of their service since
 * the same moment is the one that was made then.
 * @param groups those whose processes were there, and held, before they were let go
 */
export function noteReleased(
  report: IncidentReport,
  groups: readonly Pick<Groups[number], 'processes'>[] = [],
  look: Looking = looking,
): void {
  const made = new Map(groups.flatMap(({ processes }) => processes.map((one) => [one.pid, one.startTicks])));
  for (const process of report.processes) {
    const { pid, group, outcome, unit } = process;
    if (outcome !== 'pending' || group === undefined) continue;
    const cgroup = look.cgroup(pid);
    const isInUnit = cgroup !== undefined && unit !== undefined && unitOf(cgroup) === unit;
    const isMade = isInUnit && look.stat(pid)?.startTicks === made.get(pid);
    if (cgroup === scopeOf(group).cgroup || isMade) process.outcome = 'restored';
  }
}

/**
 * The restored groups after a resurrection that was broken off before it said which: what is in their scopes
 * now.
 */
export function groupsInScopes(report: IncidentReport, look: Looking = looking): Groups {
  const groups = new Map<number, Groups[number]['processes']>();
  for (const { pid, group, outcome } of report.processes) {
    if (outcome !== 'restored' || group === undefined || look.cgroup(pid) !== scopeOf(group).cgroup) continue;
    const now = look.stat(pid);
    if (now !== undefined) groups.set(group, [...(groups.get(group) ?? []), { pid, ...now }]);
  }
  return [...groups].map(([group, processes]) => ({ group, processes, limits: {} }));
}

/**
 * Enters into the report what runs now: the unit or scope that each restored process is in, and which have
 * ended since they ran again. A pid alone says nothing: it may be another process's by now.
 */
export function noteWhatRuns(
  groups: readonly Pick<Groups[number], 'processes'>[],
  report: IncidentReport,
  look: Looking = looking,
): void {
  const known = new Map(
    groups.flatMap(({ processes }) => processes.map((process) => [process.pid, process])),
  );
  for (const process of report.processes) {
    if (process.outcome !== 'restored') continue;
    const restored = known.get(process.pid);
    const now = look.stat(process.pid);
    const cgroup = look.cgroup(process.pid);
    const isSame = restored !== undefined && now?.startTicks === restored.startTicks;
    if (!isSame || cgroup === undefined || (now.isZombie && !restored.isZombie)) {
      process.ended = restored === undefined ? 'before the system booted' : 'while the system booted';
    } else process.adopted = unitOf(cgroup);
  }
}
