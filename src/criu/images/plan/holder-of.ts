import type { GroupFiles } from '../../../model/file.ts';
import type { Process } from '../../../model/process.ts';

/** Processes, and what they have open. */
export interface Holders {
  readonly files: Pick<GroupFiles, 'files' | 'tables'>;
  readonly processes: readonly Pick<Process, 'pid' | 'filesId'>[];
}

/**
 * A process of the group, and a descriptor in it, that lead to an open file; empty if none does.
 * @param wanted the process, if it is one of those that have it
 */
export function holderOf(
  { files, processes }: Holders,
  id: number,
  wanted?: number,
): { pid: number; fd: number }[] {
  const holders = files.tables.flatMap(({ filesId, descriptors }) => {
    const fd = descriptors.find(({ fileId }) => fileId === id)?.fd;
    if (fd === undefined) return [];
    return processes.filter((process) => process.filesId === filesId).map(({ pid }) => ({ pid, fd }));
  });
  const found = holders.find(({ pid }) => pid === wanted) ?? holders[0];
  return found === undefined ? [] : [found];
}
