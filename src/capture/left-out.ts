import type { ProcessGroup } from '../model/group.ts';
import type { PageRuns } from '../model/page-runs.ts';
import type { Process } from '../model/process.ts';
import type { Refusal } from '../model/verdict.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { describeDumpLevel } from '../vmcore/dump-level.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/**
 * Bits of makedumpfile's option -d that leave out what processes have: caches, which files of theirs may be
 * in, and their own pages.
 */
const OF_PROCESSES = 2 | 4 | 8;

/** Pages that are wanted of a dump. */
interface Count {
  wanted: number;
  absent: number;
  leftOut: number;
}

function countRuns(kernel: Kernel, count: Count, runs: PageRuns): void {
  const { physical: memory } = kernel;
  for (const { physical, pages } of runs) {
    count.wanted += pages;
    if (memory.has(physical, pages * PAGE_SIZE)) continue;
    for (let page = 0; page < pages; page++) {
      const at = physical + page * PAGE_SIZE;
      if (memory.has(at, PAGE_SIZE)) continue;
      count.absent++;
      if (memory.leftOut?.(at) === true) count.leftOut++;
    }
  }
}

function reasonOf(kernel: Kernel, { wanted, absent, leftOut }: Count, whose: string): string[] {
  if (absent === 0) return [];
  const lack = `${absent} of ${wanted} pages of ${whose} are not in the dump`;
  if (leftOut === 0) return [`${lack}: it is incomplete`];
  return [`${lack}: ${filtered(kernel)}`];
}

function filtered(kernel: Kernel): string {
  const level = describeDumpLevel(kernel.dumpLevel);
  return `it was filtered${level === undefined ? '' : `, without ${level}`}; a dump with makedumpfile -d 0 or -d 1 has them`;
}

/**
 * What to do about processes that are refused because what was looked for of them is not in the dump: most
 * are, before their pages are counted. Undefined for a dump that was not filtered so, or does not say.
 */
export function filterAdvice(kernel: Kernel): string | undefined {
  if (((kernel.dumpLevel ?? 0) & OF_PROCESSES) === 0) return undefined;
  return `pages of processes may not be in the dump: ${filtered(kernel)}`;
}

function ownReasons(kernel: Kernel, process: Process): string[] {
  const count = { wanted: 0, absent: 0, leftOut: 0 };
  for (const { runs } of process.memory?.vmas ?? []) countRuns(kernel, count, runs);
  return reasonOf(kernel, count, 'its memory');
}

/**
 * Why a group's images cannot be written from this dump: pages that are not in it, because they were filtered
 * out or because the file is cut off. Empty if all are there. What the group shares counts against its first
 * process.
 */
export function dumpProblems(kernel: Kernel, group: ProcessGroup): Refusal[] {
  const shared = { wanted: 0, absent: 0, leftOut: 0 };
  for (const { runs } of [...group.sharedMemory, ...group.segments, ...group.files.ghosts])
    countRuns(kernel, shared, runs);
  return group.processes.flatMap((process, i) => {
    const common = i === 0 ? reasonOf(kernel, shared, 'shared memory and deleted files') : [];
    const reasons = [...ownReasons(kernel, process), ...common];
    return reasons.length === 0 ? [] : [{ pid: process.pid, comm: process.comm, reasons }];
  });
}
