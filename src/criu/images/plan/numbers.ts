import type { Process } from '../../../model/process.ts';

/** Where CRIU begins to look for numbers of its own (RESERVED_PIDS of criu/include/pid.h, and one more). */
const FIRST_OF_CRIU = 301;

/**
 * Numbers that CRIU takes for helpers when it needs any: the first ones above the smallest of the images that
 * are not in them (get_free_pid()).
 */
function helperNumbers(known: readonly number[], count: number): number[] {
  const used = new Set(known);
  const found: number[] = [];
  for (let number = Math.max(Math.min(...known) + 1, FIRST_OF_CRIU); found.length < count; number++) {
    if (!used.has(number)) found.push(number);
  }
  return found;
}

/**
 * All numbers that have to be free when the processes of a group are made: of processes, threads and the
 * fabricated root; of dead leaders of sessions and process groups, whose places CRIU's helpers take for a
 * moment; and of helpers for those who left their session's leader, which CRIU numbers itself
 * (prepare_pstree_ids() of criu/pstree.c).
 *
 * @param processes as in the images, the root first
 */
export function neededNumbers(processes: readonly Process[]): number[] {
  const own = processes.flatMap(({ pid, threads }) => [pid, ...threads.map(({ tid }) => tid)]);
  const leaders = processes.flatMap(({ sid, pgid }) => [sid, pgid]).filter((number) => number > 0);
  const known = [...new Set([...own, ...leaders])];
  const [root] = processes;
  const living = new Set(processes.map(({ pid }) => pid));
  const left = processes.filter(
    ({ pid, ppid, sid }) => ppid === root?.pid && sid !== root.sid && sid !== pid && living.has(sid),
  );
  return [...known, ...helperNumbers(known, new Set(left.map(({ sid }) => sid)).size)];
}
