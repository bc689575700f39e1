import { captureProcesses } from '../capture/index.ts';
import { type CriuVersion, restoreProblems, wholeGroup } from '../criu/index.ts';
import type { FileToCheck, GroupFiles } from '../model/file.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';
import type { Refusal } from '../model/verdict.ts';
import type { Report } from '../report/schema.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { capturedReport, type Known, refusedReport } from './process-reports.ts';
import { inodeKey, type OldWorld, type WriteBackResult, writeBack } from './write-back.ts';

/** What decides, besides the processes themselves, who can come back. */
export interface CaptureConditions {
  /** Of the CRIU that will restore; undefined if it does not say. */
  readonly criu: CriuVersion | undefined;
  /** A process that is not brought back whatever its state, with the reason. */
  readonly barred: { readonly pid: number; readonly reason: string } | undefined;
  /** What became of the files that were written back. */
  readonly writtenBack: WriteBackResult['outcomes'];
  /** Where those are to be written that were not. */
  readonly world: OldWorld;
}

/**
 * Captures the selected processes and their descendants, and enters all of them into the report. What must not or cannot come back is refused there, group by
 * group.
 */
export function captureStage(
  kernel: Kernel,
  known: Known,
  { criu, barred, writtenBack, world }: CaptureConditions,
  report: Report,
): ProcessGroup[] {
  const roots = known.selected.map(({ candidate }) => candidate.pid);
  const { groups, refused } = captureProcesses(kernel, { roots, includeDescendants: true });
  const entries = refused.map((refusal) => refusedReport(refusal, known));
  const kept = groups.flatMap((group) => {
    const { outcomes, notes } = outcomesOf(group.files, writtenBack, world);
    report.notes.push(...notes);
    const problems = [
      ...barredIn(group, barred),
      ...restoreProblems(group, criu),
      ...unwrittenIn(group, outcomes),
    ];
    if (problems.length > 0) {
      for (const refusal of wholeGroup(group, problems)) entries.push(refusedReport(refusal, known));
      return [];
    }
    const made = madeFiles(group.files, outcomes);
    for (const process of group.processes) {
      const entry = capturedReport(process, group, known);
      entries.push({ ...entry, notes: [...entry.notes, ...made] });
    }
    return [{ ...group, files: { ...group.files, filesToCheck: filesToFind(group.files, outcomes) } }];
  });
  // Instead of what the selection had entered.
  report.processes = entries;
  return kept;
}

function barredIn(group: ProcessGroup, barred: { pid: number; reason: string } | undefined): Refusal[] {
  const process = group.processes.find(({ pid }) => pid === barred?.pid);
  return process === undefined || barred === undefined
    ? []
    : [{ pid: process.pid, comm: process.comm, reasons: [barred.reason] }];
}

/**
 * What became of the files of a group. A file that writing back did not come upon (its lists were damaged) is written now.
 */
export function outcomesOf(
  { unwritten }: Pick<GroupFiles, 'unwritten'>,
  writtenBack: WriteBackResult['outcomes'],
  world: OldWorld,
): Pick<WriteBackResult, 'outcomes' | 'notes'> {
  const missed = unwritten.filter((file) => !writtenBack.has(inodeKey(file)));
  const { outcomes, notes } = writeBack(missed, world);
  const all = unwritten.map((file) => {
    const key = inodeKey(file);
    return [key, outcomes.get(key) ?? writtenBack.get(key) ?? {}] as const;
  });
  return { outcomes: new Map(all), notes };
}

/** Refuses the processes of a group that uses a file of which the disk does not have all: they would go on with an older content. */
export function unwrittenIn(
  group: {
    readonly processes: readonly Pick<Process, 'pid' | 'comm'>[];
    readonly files: Pick<GroupFiles, 'unwritten'>;
  },
  outcomes: WriteBackResult['outcomes'],
): Refusal[] {
  const reasons = group.files.unwritten.flatMap((file) => {
    const problem = outcomes.get(inodeKey(file))?.problem;
    return problem === undefined ? [] : [`uses ${file.path}, which ${problem}`];
  });
  if (reasons.length === 0) return [];
  return group.processes.map(({ pid, comm }) => ({ pid, comm, reasons }));
}

/** Sentences for a process that can remember the inode of a file. */
function madeFiles(
  { unwritten }: Pick<GroupFiles, 'unwritten'>,
  outcomes: WriteBackResult['outcomes'],
): string[] {
  return unwritten.flatMap((file) => {
    const made = outcomes.get(inodeKey(file))?.made;
    if (made === undefined) return [];
    return [
      `${file.path} was not on the disk yet and is made anew: inode ${made.inode} instead of ${file.identity.inode}`,
    ];
  });
}

/** The files that are to be there when a group is restored: those that had to be made have other inodes than the group knew. */
export function filesToFind(
  { filesToCheck, unwritten }: Pick<GroupFiles, 'filesToCheck' | 'unwritten'>,
  outcomes: WriteBackResult['outcomes'],
): FileToCheck[] {
  const made = new Map(unwritten.map((file) => [file.path, outcomes.get(inodeKey(file))?.made]));
  return filesToCheck.map((file) => ({ ...file, identity: { ...file.identity, ...made.get(file.path) } }));
}
