import { limitOf, type ResourceLimit, RLIM_INFINITY } from '../../system/process-settings.ts';

/** How a process is given another limit; `setLimit`, but for tests. */
export type GiveLimit = (pid: number, resource: number, limit: ResourceLimit) => void;

/**
 * Does a step while a resource of a process has no limit.
 *
 * @param most what the kernel takes as none
 */
export function whileUnlimited<T>(
  pid: number,
  resource: number,
  give: GiveLimit,
  step: () => T,
  most: bigint = RLIM_INFINITY,
): T {
  const limit = limitOf(pid, resource);
  give(pid, resource, { soft: most, hard: most });
  try {
    return step();
  } finally {
    give(pid, resource, limit);
  }
}
