import { taskAt } from '../../linux/sched.ts';
import type { FdTable } from '../../model/file.ts';
import type { FileCapture, FileTask } from '../file-capture.ts';
import { makeParts } from '../parts.ts';
import { sharedParts } from '../shared-resources.ts';
import type { CaptureContext } from './context.ts';
import { groupFiles, selectFiles } from './group.ts';
import { ringProblems, ringSeconds } from './io-uring.ts';
import { collectors } from './kinds.ts';
import { captureDirectory, captureExecutable, captureMapped } from './mapped.ts';
import { captureTable } from './table.ts';

export { FileRefusal } from './refusal.ts';

function joinTables(context: CaptureContext, tasks: readonly FileTask[]): void {
  const byTable = Map.groupBy(tasks, ({ task }) => taskAt(context.kernel, task).files);
  for (const users of byTable.values())
    context.join(
      users.map(({ pid }) => pid),
      'a file table',
    );
}

/**
 * Captures the files of all protected processes at once: who shares what can only be told for all together.
 * Reasons against a process are in `refusals`; nothing is thrown for a damaged file, nor for a damaged list
 * of processes: what may be shared with one that is not known is then refused.
 */
export function captureFiles(context: CaptureContext): FileCapture {
  const tasks = [...context.tasks.values()];
  const tables = new Map<number, FdTable>(tasks.map((task) => [task.pid, captureTable(context, task)]));
  joinTables(context, tasks);
  for (const collect of collectors) collect(context);
  return {
    edges: context.edges,
    dependences: context.dependences,
    refusals: context.refusals,
    refusalsForNow: context.refusalsForNow,
    notes: context.notes,
    losses: context.losses,
    unexpected: context.unexpected,
    repairs: context.repairs,
    mappedFile: (file, use) => captureMapped(context, file, use),
    ringProblems: (pid, vmas, waits) => ringProblems(context, pid, vmas, waits),
    ringSeconds: (pid, vmas) => ringSeconds(context, pid, vmas),
    exeFile: (file, pid) => captureExecutable(context, file, pid),
    directory: (path, pid) => captureDirectory(context, path, pid),
    group: (pids) => {
      const own = [...pids].flatMap((pid) => tables.get(pid) ?? []);
      const group = selectFiles(context, own, pids);
      return { files: groupFiles(group, own), ...makeParts(sharedParts, group) };
    },
  };
}
