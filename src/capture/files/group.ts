import type { FdTable, GroupFiles } from '../../model/file.ts';
import { makeParts } from '../parts.ts';
import type { CaptureContext } from './context.ts';
import type { GroupSelection } from './kind.ts';
import { groupParts, kindOf } from './kinds.ts';

/** The files of some processes. */
export function selectFiles(
  context: CaptureContext,
  tables: readonly FdTable[],
  pids: ReadonlySet<number>,
): GroupSelection {
  const ids = new Set([
    ...tables.flatMap(({ descriptors }) => descriptors.map(({ fileId }) => fileId)),
    ...[...pids].flatMap((pid) => [...context.usedBy(pid)]),
  ]);
  const files = [...context.files.values()].filter(({ id }) => ids.has(id));
  const pathFiles = files.flatMap((file) => kindOf(file).pathFiles?.(file) ?? []);
  const others = files.flatMap((file) => kindOf(file).otherPaths?.(file) ?? []);
  const shmids = new Set(files.flatMap((file) => kindOf(file).shmid?.(file) ?? []));
  return {
    context,
    pids,
    namespace: context.namespaceOf([...pids][0]),
    files,
    pathFiles,
    shmids,
    paths: [...pathFiles.map(({ path }) => path), ...others],
  };
}

/**
 * The part of a capture that belongs to a group of processes. Throws a FileRefusal if one of its files cannot
 * come back as it was.
 */
export function groupFiles(group: GroupSelection, tables: readonly FdTable[]): GroupFiles {
  const unique = [...new Map(tables.map((table) => [table.filesId, table])).values()];
  return { files: group.files, tables: unique, ...makeParts(groupParts, group) };
}
