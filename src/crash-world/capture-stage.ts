import { captureProcesses } from '../capture/index.ts';
import { type CriuVersion, restoreProblems, wholeGroup } from '../criu/index.ts';
import type { GroupFiles } from '../model/file.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';
import type { Refusal } from '../model/verdict.ts';
import type { Report } from '../report/schema.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { OldMemory } from './old-size.ts';
import { capturedReport, type Known, refusedReport } from './process-reports.ts';
import { inodeKey, type WriteBackResult, writeBack } from './write-back.ts';

/**
 * Captures the selected processes and their descendants, and enters all of them into the report. What must not or cannot come back is refused there, group by
 * group.
 * @param writtenBack what became of the files that were written back
 * @param barred a process that is not brought back whatever its state, with the reason
 */
export function captureStage(
  kernel: Kernel,
  known: Known,
  criu: CriuVersion | undefined,
  barred: { readonly pid: number; readonly reason: string } | undefined,
  writtenBack: WriteBackResult['outcomes'],
  report: Report,
): ProcessGroup[] {
  const roots = known.selected.map(({ candidate }) => candidate.pid);
  const { groups, refused } = captureProcesses(kernel, { roots, includeDescendants: true });
  const entries = refused.map((refusal) => refusedReport(refusal, known));
  const kept = groups.filter((group) => {
    const problems = [
      ...barredIn(group, barred),
      ...restoreProblems(group, criu),
      ...unwrittenIn(group, writtenBack, kernel.physical),
    ];
    if (problems.length > 0) {
      for (const refusal of wholeGroup(group, problems)) entries.push(refusedReport(refusal, known));
      return false;
    }
    for (const process of group.processes) entries.push(capturedReport(process, group, known));
    return true;
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
 * Refuses the processes of a group that uses a file of which the disk does not have all: they would go on with an older content. A file that
 * writing back did not come upon (its lists were damaged) is written now.
 */
export function unwrittenIn(
  group: {
    readonly processes: readonly Pick<Process, 'pid' | 'comm'>[];
    readonly files: Pick<GroupFiles, 'unwritten'>;
  },
  writtenBack: WriteBackResult['outcomes'],
  memory: OldMemory,
  root = '/',
): Refusal[] {
  const { unwritten } = group.files;
  const missed = unwritten.filter((file) => !writtenBack.has(inodeKey(file)));
  const outcomes = new Map([...writtenBack, ...writeBack(missed, memory, root).outcomes]);
  const reasons = unwritten.flatMap((file) => {
    const problem = outcomes.get(inodeKey(file));
    return problem === undefined ? [] : [`uses ${file.path}, which ${problem}`];
  });
  if (reasons.length === 0) return [];
  return group.processes.map(({ pid, comm }) => ({ pid, comm, reasons }));
}
