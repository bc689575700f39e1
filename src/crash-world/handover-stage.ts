import type { CgroupLimits } from '../linux/readers/cgroup-limits.ts';
import type { GroupFiles } from '../model/file.ts';
import { processStat } from '../system/proc.ts';
import { planAdoptions } from './adoption.ts';
import { writeHandover } from './handover.ts';
import { imagedPids } from './images-stage.ts';
import type { Selection } from './process-reports.ts';
import type { RestoredGroup } from './restore-stage.ts';
import { noteStalePidFiles, type SavedTmpfs } from './saved-tmpfs.ts';
import { limitsOfGroup } from './scope-limits.ts';
import type { Candidate } from './select.ts';
import { orElse, required, stage } from './stage-list.ts';
import { keepTemporaryFiles, writeDropIn, writeJournalDropIn } from './units.ts';

/**
 * Without a selection the services of the processes are not known: all are left in the scopes of their
 * groups.
 */
export const handoverStage = stage({
  name: 'handover',
  needs: {
    restored: orElse<readonly RestoredGroup[]>([]),
    selection: orElse<Selection>({ selected: [], candidates: [] }),
    limits: required<ReadonlyMap<number, CgroupLimits>>(),
    savedTmpfs: orElse<SavedTmpfs | undefined>(undefined),
  },
  run: ({ restored, selection, limits, savedTmpfs }, { place, report }) => {
    report.notes.push(...handOver(restored, selection.candidates, limits, place));
    const pids = new Set(restored.flatMap((group) => group.pids));
    if (savedTmpfs !== undefined) noteStalePidFiles(savedTmpfs, pids, report);
  },
});

/**
 * Tells the part after systemd's start, and the services' helpers, which processes there are.
 * @param place the incident, and the directory that holds it
 * @returns what of their limits is lost
 */
function handOver(
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
