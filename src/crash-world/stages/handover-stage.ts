import type { PidFile } from '../../capture/tmpfs-files.ts';
import type { CgroupLimits } from '../../linux/readers/cgroup-limits.ts';
import type { GroupFiles } from '../../model/file.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { processStat } from '../../system/proc.ts';
import { concludeGroup, type Selection } from '../incident/process-reports.ts';
import { noteStalePidFiles, type SavedTmpfs } from '../mounts/saved-tmpfs.ts';
import type { Candidate } from '../processes/select.ts';
import { ApartConnections, type ApartEnd } from '../sandbox/apart-connections.ts';
import { writeSandboxDropIn, writeSandboxUnit } from '../sandbox/sandbox-units.ts';
import { answerConnections } from '../sandbox/unanswered.ts';
import { planAdoptions, type UnitAdoption } from '../systemd/adoption.ts';
import { type Handover, writeHandover } from '../systemd/handover.ts';
import { limitsOfGroup } from '../systemd/scope-limits.ts';
import { keepTemporaryFiles, writeDropIn, writeJournalDropIn } from '../systemd/units.ts';
import { imagedPids } from './images-stage.ts';
import type { RestoredGroup } from './restore-stage.ts';
import type { LateGroup } from './sandboxes-stage.ts';
import { orElse, required, stage } from './stage-list.ts';

/**
 * Without a selection the services of the processes are not known: all are left in the scopes of their
 * groups.
 */
export const handoverStage = stage({
  name: 'handover',
  needs: {
    restored: orElse<readonly RestoredGroup[]>([]),
    selection: orElse<Selection>({ selected: [], candidates: [], rules: [] }),
    limits: required<ReadonlyMap<number, CgroupLimits>>(),
    savedTmpfs: orElse<SavedTmpfs | undefined>(undefined),
    late: orElse<readonly LateGroup[]>([]),
    apart: orElse<readonly ApartEnd[]>([]),
  },
  run: async ({ restored, selection, limits, savedTmpfs, late, apart }, { place, report }) => {
    const pidFiles = savedTmpfs?.pidFiles ?? [];
    const brought = { restored, late, pidFiles };
    report.notes.push(...handOver(brought, selection.candidates, limits, place, report));
    const pids = new Set([...restored, ...late].flatMap((group) => group.pids));
    if (savedTmpfs !== undefined) noteStalePidFiles(savedTmpfs, pids, report);
    // Of those that have not come so far that anybody would bring them back.
    await new ApartConnections(apart, report).decided();
  },
});

/** What is brought back, now or while the system boots. */
interface Brought {
  readonly restored: readonly RestoredGroup[];
  readonly late: readonly LateGroup[];
  /** On tmpfs, whoever they name. */
  readonly pidFiles: readonly PidFile[];
}

/**
 * Tells the part after systemd's start, and the services' helpers, which processes there are.
 * @param place the incident, and the directory that holds it
 * @returns what of their limits is lost
 */
function handOver(
  { restored, late, pidFiles }: Brought,
  candidates: readonly Candidate[],
  limits: ReadonlyMap<number, CgroupLimits>,
  place: { readonly id: string; readonly incidents: string },
  report: IncidentReport,
): string[] {
  keepTemporaryFiles();
  const groups = restored.map(({ pids, imaged }) => ({ pids, members: imagedPids([imaged]) }));
  const units = planAdoptions([...groups, ...late], candidates);
  const sandboxes = sandboxesOf(units, { late, pidFiles }, report);
  const isSandboxed = ({ unit }: UnitAdoption): boolean => sandboxes.some((one) => one.unit === unit);
  for (const adoption of units) (isSandboxed(adoption) ? writeSandboxDropIn : writeDropIn)(adoption);
  if (sandboxes.length > 0) writeSandboxUnit();
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
    sandboxes,
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

/** The services that get their processes in a sandbox. One that does not get all is as after any boot. */
function sandboxesOf(
  units: readonly UnitAdoption[],
  { late, pidFiles }: Pick<Brought, 'late' | 'pidFiles'>,
  report: IncidentReport,
): Handover['sandboxes'] {
  const taken = new Set(units.map(({ unit }) => unit));
  for (const { group, unit } of late.filter((one) => !taken.has(one.unit))) {
    const why = `not all processes of ${unit} can come back: it is left to the boot whether it starts`;
    concludeGroup(report, group, 'failed', [why]);
    answerConnections(group);
  }
  return [...new Set(late.map(({ unit }) => unit))]
    .filter((unit) => taken.has(unit))
    .map((unit) => ({
      unit,
      groups: late.filter((one) => one.unit === unit).map(({ group, directory }) => ({ group, directory })),
      pidFiles: pidFiles.filter(({ pid }) => late.some((one) => one.unit === unit && one.pids.includes(pid))),
    }));
}

function hasStreams({ files }: Pick<GroupFiles, 'files'>): boolean {
  return files.some((file) => file.type === 'unix' && file.journal?.kind === 'stream');
}
