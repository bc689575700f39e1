import { killAllOf } from '../../criu/restore/index.ts';
import { processStat } from '../../system/proc.ts';
import { codeOf } from '../../system/thrown.ts';
import { scopeOf } from './adoption.ts';

/** Start times of processes, in USER_HZ ticks since boot, by their numbers. */
export type StartTimes = ReadonlyMap<number, number>;

/** The start times of those that are there. */
export function startTimesOf(pids: readonly number[]): StartTimes {
  return new Map(
    pids.flatMap((pid) => {
      const stat = processStat(pid);
      return stat === undefined ? [] : [[pid, stat.startTicks]];
    }),
  );
}

/** A group that was restored, and its processes. */
export interface StartedGroup {
  readonly group: number;
  readonly started: StartTimes;
}

/**
 * Kills the processes of a group, and all that they have forked: whatever is in the scope of the group.
 * Nobody who has one of their numbers by now is touched.
 *
 * @param cgroups where cgroup v2 is mounted
 * @returns whether one of them was there
 */
export function endScope({ group, started }: StartedGroup, cgroups?: string): boolean {
  const there = [...started].filter(([pid, ticks]) => {
    const stat = processStat(pid);
    return stat !== undefined && !stat.isZombie && stat.startTicks === ticks;
  });
  // What is forked while others are killed is killed with them.
  killAllOf(scopeOf(group).cgroup, cgroups);
  // It may be in another cgroup.
  return there.filter(([pid]) => kill(pid)).length > 0;
}

function kill(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return true;
    throw error;
  }
}
