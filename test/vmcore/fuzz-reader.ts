import { unwrittenFiles } from '../../src/capture/files/content/write-back.ts';
import { captureProcesses } from '../../src/capture/index.ts';
import { filesInspection } from '../../src/inspect/files.ts';
import { logInspection } from '../../src/inspect/log.ts';
import { allMapsInspection } from '../../src/inspect/maps.ts';
import { structInspection } from '../../src/inspect/struct.ts';
import { summaryInspection } from '../../src/inspect/summary.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { threadsInspection } from '../../src/inspect/threads.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { forEachPid, forEachTask } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { walkUserPages } from '../../src/vmcore/page-table.ts';
import { processorMilliseconds } from '../processor-time.ts';
import { type Views, viewsOf } from './views.ts';

/** Which dump to read, and of which of its processes to show all. */
export interface FuzzQuestion {
  readonly path: string;
  readonly pids: readonly number[];
}

/** What came of reading one dump. */
export interface FuzzAnswer {
  /** How many of the looks ended with a VmcoreError. */
  readonly refused: number;
  /** How many found something. */
  readonly read: number;
  /**
   * All that `inspect` shows of the processes that the whole dump has; undefined if the kernel was not found.
   */
  readonly views: Views | undefined;
  /** The stack of an error that is none, which is a fault of the reader. */
  readonly fault: string | undefined;
  readonly rssMib: number;
  /** What it took of a processor. */
  readonly processorSeconds: number;
}

/** Looks at everything, each look on its own: what one refuses, another may still read. */
function* looks(kernel: Kernel): Generator<() => unknown> {
  yield () => summaryInspection(kernel).text();
  yield () => logInspection(kernel).text();
  yield () => [...forEachPid(kernel)].length;
  yield () => allMapsInspection(kernel).text();
  yield () => structInspection(kernel, 'task_struct', 'init_task').text();
  const pids: number[] = [];
  yield () => {
    pids.push(...listProcesses(kernel).rows.map(({ pid }) => pid));
  };
  // The fixtures lack most of what a capture reads (test/guest/damage.test.ts has it all): here it has to
  // refuse, with reasons.
  yield () => {
    const { groups, refused } = captureProcesses(kernel, { roots: pids, includeDescendants: true });
    if (groups.length + refused.length === 0 && pids.length > 0) throw new Error('a capture says nothing');
    if (refused.some(({ reasons }) => reasons.length === 0)) throw new Error('a refusal has no reason');
  };
  yield () => [...unwrittenFiles(kernel, [])];
  for (const pid of pids) {
    yield () => filesInspection(kernel, pid).text();
    yield () => threadsInspection(kernel, pid).text();
  }
  for (const task of forEachTask(kernel)) {
    yield () => {
      const { mm } = taskAt(kernel, task);
      if (mm !== 0n) for (const _ of walkUserPages(kernel, kernel.bind(mmStruct).at(mm).pgd, 0, 2 ** 47));
    };
  }
}

function read(path: string, pids: readonly number[]): FuzzAnswer {
  const started = processorMilliseconds();
  let views: Views | undefined;
  const answer = { refused: 0, read: 0, fault: undefined as string | undefined };
  const attempt = (look: () => unknown): void => {
    try {
      look();
      answer.read++;
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      answer.refused++;
    }
  };
  try {
    attempt(() => {
      const kernel = openKernel(path);
      attempt(() => {
        for (const look of looks(kernel)) attempt(look);
      });
      views = viewsOf(kernel, pids);
      kernel.close();
    });
  } catch (error) {
    answer.fault = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const used = processorMilliseconds() - started;
  return {
    ...answer,
    views,
    rssMib: Math.round(process.memoryUsage.rss() / 2 ** 20),
    processorSeconds: used / 1000,
  };
}

process.on('message', ({ path, pids }: FuzzQuestion) => {
  process.send?.(read(path, pids));
});
