import { readClocks } from '../../linux/readers/clocks.ts';
import { listTasks, type TaskList } from '../../linux/readers/task-list.ts';
import { taskAt } from '../../linux/sched.ts';
import { signalStruct } from '../../linux/signal.ts';
import type { Clocks } from '../../linux/timekeeping.ts';
import { ttyStruct } from '../../linux/tty.ts';
import type { FdTable } from '../../model/file.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Disks, FileCapture, FileTask } from '../file-capture.ts';
import { CaptureContext } from './context.ts';
import { groupFiles } from './group.ts';
import { captureLocks } from './locks.ts';
import { captureDirectory, captureExecutable, captureMapped } from './mapped.ts';
import { captureTable } from './table.ts';

export { FileRefusal } from './refusal.ts';

function joinTables(context: CaptureContext, tasks: readonly FileTask[]): void {
  const byTable = new Map<bigint, number[]>();
  for (const { pid, task } of tasks) {
    const { files } = taskAt(context.kernel, task);
    byTable.set(files, [...(byTable.get(files) ?? []), pid]);
  }
  for (const pids of byTable.values()) context.join(pids, 'a file table');
}

/** A controlling terminal comes back with an open file on it, not by itself. */
function noteLostTerminals(context: CaptureContext, tasks: readonly FileTask[]): void {
  const { kernel } = context;
  for (const { pid, task } of tasks) {
    const tty = readable(() => kernel.bind(signalStruct).at(taskAt(kernel, task).signal).tty) ?? 0n;
    if (tty === 0n || context.terminalsByTty.has(tty)) continue;
    const name = readable(() => kernel.bind(ttyStruct).at(tty).name) ?? 'a terminal';
    context.note(pid, `${name} is no longer its controlling terminal: no protected process has it open`);
  }
}

/**
 * Captures the files of all protected processes at once: who shares what can only be told for all together. Reasons against
 * a process are in `refusals`; nothing is thrown for a damaged file, nor for a damaged list of processes: what may be shared with one that
 * is not known is then refused. Throws a VmcoreError if the clocks cannot be read.
 *
 * @param list all processes of the system
 * @param disks where copies of deleted files are looked for
 */
export function captureFiles(
  kernel: Kernel,
  tasks: readonly FileTask[],
  clocks: Clocks = readClocks(kernel),
  list: TaskList = listTasks(kernel),
  disks?: Disks,
): FileCapture {
  const context = new CaptureContext(kernel, clocks, tasks, list, disks);
  const tables = new Map<number, FdTable>(tasks.map((task) => [task.pid, captureTable(context, task)]));
  joinTables(context, tasks);
  noteLostTerminals(context, tasks);
  const locks = captureLocks(context);
  return {
    edges: context.edges,
    refusals: context.refusals,
    notes: context.notes,
    repairs: context.repairs,
    mappedFile: (file, use) => captureMapped(context, file, use),
    exeFile: (file, pid) => captureExecutable(context, file, pid),
    directory: (path, pid) => captureDirectory(context, path, pid),
    groupFiles: (pids) => groupFiles(context, tables, locks, pids),
  };
}
