import type { GroupFiles } from '../../../model/file.ts';
import type { Process } from '../../../model/process.ts';

/** Processes, and what they have open. */
export interface Holders {
  readonly files: Pick<GroupFiles, 'files' | 'tables'>;
  readonly processes: readonly Pick<Process, 'pid' | 'filesId'>[];
}

/** A process of the group, and a descriptor in it, that lead to an open file; empty if none does. */
export function holderOf({ files, processes }: Holders, id: number): { pid: number; fd: number }[] {
  for (const { filesId, descriptors } of files.tables) {
    const fd = descriptors.find(({ fileId }) => fileId === id)?.fd;
    const pid = processes.find((process) => process.filesId === filesId)?.pid;
    if (fd !== undefined && pid !== undefined) return [{ pid, fd }];
  }
  return [];
}
