import type { SeccompFilter } from '../../model/process.ts';
import type { ImageDirectory } from './image.ts';
import { SeccompEntrySchema } from './proto/gen/seccomp_pb.ts';
import type { RootedGroup } from './rooted-group.ts';

/** SECCOMP_FILTER_FLAG_LOG (include/uapi/linux/seccomp.h). */
const FLAG_LOG = 2;

/** The place of each filter in `seccomp.img`: one that was inherited is there once. */
export type FilterIds = ReadonlyMap<SeccompFilter, number>;

/** Numbers the filters of all threads of a group, each after the one that was there before it. */
export function filterIds({ tree }: Pick<RootedGroup, 'tree'>): FilterIds {
  const ids = new Map<SeccompFilter, number>();
  for (const { seccomp } of tree.flatMap(({ threads }) => threads)) {
    const chain: SeccompFilter[] = [];
    for (let filter = seccomp; filter !== undefined && !ids.has(filter); filter = filter.previous)
      chain.push(filter);
    for (const filter of chain.toReversed()) ids.set(filter, ids.size);
  }
  return ids;
}

/** Writes `seccomp.img`, or nothing if no thread has a filter. */
export function writeSeccomp(group: RootedGroup, images: ImageDirectory): void {
  const ids = filterIds(group);
  if (ids.size === 0) return;
  images.image('seccomp').entry(SeccompEntrySchema, {
    seccompFilters: [...ids.keys()].map(({ program, isLogged, previous }) => ({
      filter: program,
      ...(previous === undefined ? {} : { prev: ids.get(previous) ?? 0 }),
      ...(isLogged ? { flags: FLAG_LOG } : {}),
    })),
  });
}
