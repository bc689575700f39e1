import { rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { captureCrashProcedures } from '../capture/crash-procedure.ts';
import { captureProcesses } from '../capture/index.ts';
import { applyCrashProcedures, type ProcedurePlan } from '../criu/crash-procedure.ts';
import { writeBack } from '../criu/files/write-back.ts';
import { type CriuVersion, restoreProblems, writeImages } from '../criu/index.ts';
import { keepWithoutProcedures } from '../criu/procedure-fallback.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Refusal } from '../model/verdict.ts';
import type { Report } from '../report/schema.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { capturedReport, type Known, refusedReport } from './process-reports.ts';
import { messageOf } from './stages.ts';

/** A group whose images are on the disk. */
export interface ImagedGroup {
  readonly group: ProcessGroup;
  readonly directory: string;
  /** Bytes of memory that the group will take. */
  readonly pagesBytes: number;
  readonly plans: readonly ProcedurePlan[];
}

/**
 * Captures the selected processes and their descendants, and enters all of them into the report. What must not or cannot come back is refused there, group by
 * group.
 * @param barred a process that is not brought back whatever its state, with the reason
 */
export function captureStage(
  kernel: Kernel,
  known: Known,
  criu: CriuVersion | undefined,
  barred: { readonly pid: number; readonly reason: string } | undefined,
  report: Report,
): ProcessGroup[] {
  const roots = known.selected.map(({ candidate }) => candidate.pid);
  const { groups, refused } = captureProcesses(kernel, { roots, includeDescendants: true });
  for (const refusal of refused) report.processes.push(refusedReport(refusal, known));
  return groups.filter((group) => {
    const problems = [...barredIn(group, barred), ...restoreProblems(group, criu)];
    if (problems.length > 0) {
      for (const refusal of wholeGroup(group, problems)) report.processes.push(refusedReport(refusal, known));
      return false;
    }
    for (const process of group.processes) report.processes.push(capturedReport(process, group, known));
    return true;
  });
}

function barredIn(group: ProcessGroup, barred: { pid: number; reason: string } | undefined): Refusal[] {
  const process = group.processes.find(({ pid }) => pid === barred?.pid);
  return process === undefined || barred === undefined
    ? []
    : [{ pid: process.pid, comm: process.comm, reasons: [barred.reason] }];
}

/** Refuses a whole group: its culprits with their reasons, the others because of them. */
function wholeGroup(group: ProcessGroup, problems: readonly Refusal[]): Refusal[] {
  const culprits = [...new Map(problems.map(({ pid, comm }) => [pid, `${pid} (${comm})`])).values()].join(
    ', ',
  );
  return group.processes.map(({ pid, comm }) => {
    const own = problems.filter((problem) => problem.pid === pid).flatMap(({ reasons }) => reasons);
    const reasons = own.length > 0 ? own : [`belongs together with ${culprits}, which cannot come back`];
    return { pid, comm, reasons };
  });
}

/** Sets the outcome of all processes of a group. */
export function concludeGroup(
  report: Report,
  group: number,
  outcome: 'restored' | 'failed',
  reasons: readonly string[],
): void {
  for (const process of report.processes) {
    if (process.group !== group) continue;
    process.outcome = outcome;
    process.reasons.push(...reasons);
  }
}

/**
 * Writes the images of each group into a directory of its own, with the crash procedures of its processes applied. A group that cannot be written is reported
 * as failed, and leaves nothing behind.
 */
export function imageStage(
  kernel: Kernel,
  groups: readonly ProcessGroup[],
  images: string,
  occasion: { readonly id: string; readonly panicTimeNanoseconds: bigint },
  report: Report,
): ImagedGroup[] {
  return groups.flatMap((group) => {
    const directory = join(images, `group-${group.id}`);
    try {
      const applied = applyCrashProcedures(group, captureCrashProcedures(kernel, group), occasion);
      const { pagesBytes } = writeImages(applied.group, kernel.physical, directory);
      const { problems } = writeBack(group.files.unwritten, kernel.physical);
      report.notes.push(...problems.map(({ path, problem }) => `${path} ${problem}`));
      keepWithoutProcedures(group, applied.plans, directory);
      notePlans(report, applied.plans);
      return [{ group: applied.group, directory, pagesBytes, plans: applied.plans }];
    } catch (error) {
      console.error(error);
      const free = freeMebibytes(images);
      rmSync(directory, { recursive: true, force: true });
      concludeGroup(report, group.id, 'failed', [
        `its images could not be written: ${messageOf(error)} (${free} MiB are free in ${images})`,
      ]);
      return [];
    }
  });
}

function freeMebibytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return Math.floor((bavail * bsize) / 2 ** 20);
}

function notePlans(report: Report, plans: readonly ProcedurePlan[]): void {
  for (const plan of plans) {
    const process = report.processes.find(({ pid }) => pid === plan.pid);
    if (process === undefined) continue;
    process.crashProcedure =
      plan.state === 'delivered'
        ? { delivery: plan.procedure.delivery.kind, state: 'delivered' }
        : { delivery: 'none', state: 'ignored', detail: `the record ${plan.reason}` };
  }
}
