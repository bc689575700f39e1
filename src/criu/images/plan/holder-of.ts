import type { GroupFiles } from '../../../model/file.ts';
import type { Process } from '../../../model/process.ts';

/** Processes, and what they have open. */
export interface Holders {
  readonly files: Pick<GroupFiles, 'files' | 'tables'>;
  readonly processes: readonly Pick<Process, 'pid' | 'filesId'>[];
}

/** A process, and a descriptor in it. */
export interface Holder {
  readonly pid: number;
  readonly fd: number;
}

/**
 * A process of the group, and a descriptor in it, that lead to an open file; empty if none does.
 * @param wanted the process, if it is one of those that have it
 */
export type HolderOf = (id: number, wanted?: number) => readonly Holder[];

/** Tells who holds the files of a group; its tables are read once, for all files. */
export function holdersIn({ files, processes }: Holders): HolderOf {
  const users = Map.groupBy(processes, ({ filesId }) => filesId);
  const byId = new Map<number, Holder[]>();
  for (const { filesId, descriptors } of files.tables) {
    const own = users.get(filesId) ?? [];
    const seen = new Set<number>();
    for (const { fileId, fd } of descriptors) {
      if (seen.has(fileId)) continue;
      seen.add(fileId);
      const holders = byId.get(fileId) ?? [];
      byId.set(fileId, holders);
      for (const { pid } of own) holders.push({ pid, fd });
    }
  }
  return (id, wanted) => {
    const holders = byId.get(id) ?? [];
    const found =
      (wanted === undefined ? undefined : holders.find(({ pid }) => pid === wanted)) ?? holders[0];
    return found === undefined ? [] : [found];
  };
}
