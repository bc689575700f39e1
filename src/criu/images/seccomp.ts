import type { SeccompFilter } from '../../model/process.ts';
import type { ImageDirectory } from './image.ts';
import { SeccompEntrySchema } from './proto/gen/seccomp_pb.ts';
import type { RootedGroup } from './rooted-group.ts';

/** SECCOMP_FILTER_FLAG_LOG (include/uapi/linux/seccomp.h). */
const FLAG_LOG = 2;

/** Where CRIU begins with the filters of a thread: the place in `seccomp.img`, by the newest of them. */
export type FilterIds = ReadonlyMap<SeccompFilter, number>;

/** A filter in `seccomp.img`, and the place of the one that is installed after it. */
interface PlacedFilter {
  readonly filter: SeccompFilter;
  readonly next: number | undefined;
}

function chainFrom(newest: SeccompFilter): SeccompFilter[] {
  const chain: SeccompFilter[] = [];
  for (let at: SeccompFilter | undefined = newest; at !== undefined; at = at.previous) chain.push(at);
  return chain;
}

/**
 * The filters of a group as CRIU has them (criu/seccomp.c, `dump_seccomp_filters` and
 * `seccomp_prepare_threads`): a thread names its oldest filter, and `prev` of each leads to the next newer
 * one; in this order they are installed. Threads with the same newest filter have one chain in common; what
 * two chains have in common is there once for each, because it goes on in two ways.
 */
function placeFilters({ tree }: Pick<RootedGroup, 'tree'>): { placed: PlacedFilter[]; ids: FilterIds } {
  const placed: PlacedFilter[] = [];
  const ids = new Map<SeccompFilter, number>();
  for (const { seccomp } of tree.flatMap(({ threads }) => threads)) {
    if (seccomp === undefined || ids.has(seccomp)) continue;
    for (const filter of chainFrom(seccomp))
      placed.push({ filter, next: filter === seccomp ? undefined : placed.length - 1 });
    ids.set(seccomp, placed.length - 1);
  }
  return { placed, ids };
}

/** Where each thread of a group has its filters, by the newest of them. */
export function filterIds(group: Pick<RootedGroup, 'tree'>): FilterIds {
  return placeFilters(group).ids;
}

/** Writes `seccomp.img`, or nothing if no thread has a filter. */
export function writeSeccomp(group: Pick<RootedGroup, 'tree'>, images: ImageDirectory): void {
  const { placed } = placeFilters(group);
  if (placed.length === 0) return;
  images.image('seccomp').entry(SeccompEntrySchema, {
    seccompFilters: placed.map(({ filter: { program, isLogged }, next }) => ({
      filter: program,
      ...(next === undefined ? {} : { prev: next }),
      ...(isLogged ? { flags: FLAG_LOG } : {}),
    })),
  });
}
