import type { Vma } from '../../model/memory.ts';
import { listedRuns } from '../../model/page-runs.ts';
import type { Area } from './memory-attributes.ts';

/**
 * What stands where an area was that its process comes back without: memory that cannot be touched
 * (PROT_NONE). An address that leads there stays a fault. Left free, the range would be what the next mmap(2)
 * gets, and the address would lead to other data.
 */
export function holeOf({ start, end }: Pick<Area, 'start' | 'end'>): Vma {
  return {
    ...{ start, end, kind: 'anonymous', prot: 0, offsetBytes: 0, advice: [], runs: listedRuns([]) },
    ...{ growsDown: false, heap: false, stack: false, hugetlb: false, locked: false },
    // CRIU maps it writable at first: it would count as memory that may be needed.
    noReserve: true,
  };
}
