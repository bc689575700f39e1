import type { CgroupLimits } from '../linux/readers/cgroup-limits.ts';
import type { GroupFiles } from '../model/file.ts';
import { processStat } from '../system/proc.ts';
import { planAdoptions } from './adoption.ts';
import { writeHandover } from './handover.ts';
import type { ImagedGroup } from './image-stage.ts';
import type { RestoredGroup } from './restore-stage.ts';
import { limitsOfGroup } from './scope-limits.ts';
import type { Candidate } from './select.ts';
import { keepTemporaryFiles, writeDropIn, writeJournalDropIn } from './units.ts';

/**
 * Tells the part after systemd's start, and the services' helpers, which processes there are.
 * @param place the incident, and the directory that holds it
 * @returns what of their limits is lost
 */
export function handoverStage(
  restored: readonly RestoredGroup[],
  candidates: readonly Candidate[],
  limits: ReadonlyMap<number, CgroupLimits>,
  place: { readonly id: string; readonly incidents: string },
): string[] {
  keepTemporaryFiles();
  const groups = restored.map(({ pids, imaged }) => ({ pids, members: imagedPids([imaged]) }));
  const units = planAdoptions(groups, candidates);
  for (const adoption of units) writeDropIn(adoption);
  if (restored.some(({ imaged }) => hasStreams(imaged.group.files))) writeJournalDropIn();
  const taken = new Set(units.flatMap(({ processes }) => processes.map(({ pid }) => pid)));
  const placed = restored.map(({ group, pids }) => {
    const left = pids.filter((pid) => !taken.has(pid));
    return { group, pids, ...limitsOfGroup(left.map((pid) => ({ pid, limits: limits.get(pid) ?? {} }))) };
  });
  writeHandover({
    incident: place.id,
    incidents: place.incidents,
    units: units.map((adoption) => ({ ...adoption, processes: [...adoption.processes] })),
    groups: placed.map(({ group, pids, limits: own }) => ({
      group,
      limits: own,
      processes: pids.flatMap((pid) => {
        const now = processStat(pid);
        return now === undefined ? [] : [{ pid, startTicks: now.startTicks, isZombie: now.isZombie }];
      }),
    })),
  });
  return placed.flatMap(({ notes }) => notes);
}

function hasStreams({ files }: Pick<GroupFiles, 'files'>): boolean {
  return files.some((file) => file.type === 'unix' && file.journal?.kind === 'stream');
}

/** The pids of all processes of groups. */
export function imagedPids(imaged: readonly ImagedGroup[]): number[] {
  return imaged.flatMap(({ group }) => group.processes.map(({ pid }) => pid));
}
