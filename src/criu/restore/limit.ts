import { limitOf, type ResourceLimit } from '../../system/process-settings.ts';

const RLIM_INFINITY = 2n ** 64n - 1n;

/** How a process is given another limit; `setLimit`, but for tests. */
export type GiveLimit = (pid: number, resource: number, limit: ResourceLimit) => void;

/** Does a step while a resource of a process has no limit. */
export function whileUnlimited<T>(pid: number, resource: number, give: GiveLimit, step: () => T): T {
  const limit = limitOf(pid, resource);
  give(pid, resource, { soft: RLIM_INFINITY, hard: RLIM_INFINITY });
  try {
    return step();
  } finally {
    give(pid, resource, limit);
  }
}
