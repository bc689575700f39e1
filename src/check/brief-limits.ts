import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { liveParents, withDescendants } from '../arm/protected-need.ts';
import { ifThere } from '../system/proc.ts';

/** Processes, descendants too, that can be looked at in a second or two. */
const MOST_PROCESSES = 200;
/** Their memory: each of its pages is looked at. KiB, as /proc has it. */
const MOST_MEMORY = 2 << 20;

/** Resident and swapped memory by the text of a /proc/PID/status (proc(5)), KiB; 0 for a zombie. */
function memoryOf(status: string): number {
  return [...status.matchAll(/^Vm(?:RSS|Swap):\s*(\d+) kB$/gm)].reduce(
    (sum, [, size]) => sum + Number(size),
    0,
  );
}

/**
 * Whether processes and their descendants can be looked at by the way: a look takes as long as they are many
 * and large. It is told by what costs little.
 */
export function isQuickToCheck(pids: readonly number[], proc = '/proc'): boolean {
  const family = withDescendants(pids, liveParents(proc));
  if (family.size > MOST_PROCESSES) return false;
  let memory = 0;
  for (const pid of family) {
    memory += memoryOf(ifThere(() => readFileSync(join(proc, String(pid), 'status'), 'latin1')) ?? '');
    if (memory > MOST_MEMORY) return false;
  }
  return true;
}
