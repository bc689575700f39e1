import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { listRead } from '../list.ts';
import { forEachPid, pidTask } from '../pid.ts';
import { taskStruct } from '../sched.ts';

/** PID_MAX_LIMIT on 64 bits. */
const MAX_TASKS = 1 << 22;

/**
 * A process of which nothing but its number is known: its `task_struct` cannot be read, or says that it is
 * another's.
 */
export interface LostTask {
  readonly pid: number;
  readonly problem: string;
}

/** The processes of a dead kernel, and how sure it is that these are all. */
export interface TaskList {
  /**
   * Addresses of the `task_struct` of every process (thread group leader) that was found, without the idle
   * task.
   */
  readonly tasks: readonly bigint[];
  readonly lost: readonly LostTask[];
  /** Sentences about what is wrong with the list of tasks and the table of PIDs; empty if nothing is. */
  readonly damage: readonly string[];
  /**
   * Whether every process is in `tasks` or in `lost`. If not, there may be others of which nothing is known.
   */
  readonly isComplete: boolean;
}

/** Processes by the table of PIDs: every `struct pid` that a thread group leader uses. */
function tasksByPid(kernel: Kernel): Omit<TaskList, 'isComplete'> & { readonly isWhole: boolean } {
  const bound = kernel.bind(taskStruct);
  const tasks: bigint[] = [];
  const lost: LostTask[] = [];
  const damage: string[] = [];
  let isWhole = true;
  try {
    for (const { nr, pid } of forEachPid(kernel)) {
      let task: bigint | undefined;
      try {
        task = pidTask(kernel, pid, 'PIDTYPE_TGID');
      } catch (error) {
        if (!(error instanceof VmcoreError)) throw error;
        isWhole = false;
        damage.push(`PID ${nr} in the table of PIDs cannot be read: ${error.message}`);
        continue;
      }
      if (task === undefined) continue;
      const problem = leaderProblem(() => bound.at(task).tgid, nr);
      if (problem === undefined) tasks.push(task);
      else lost.push({ pid: nr, problem });
    }
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    isWhole = false;
    damage.push(`the table of PIDs: ${error.message}`);
  }
  return { tasks, lost, damage, isWhole };
}

function leaderProblem(readTgid: () => number, nr: number): string | undefined {
  try {
    const tgid = readTgid();
    return tgid === nr ? undefined : `its task_struct says that it is ${tgid}`;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return error.message;
  }
}

/**
 * All processes. They are on one list that starts at `init_task`; where that is damaged, what is left of it
 * from both of its ends, and what the table of PIDs (`init_pid_ns.idr`) has, are put together. Throws a
 * VmcoreError only if the kernel's layouts cannot be read.
 */
export function listTasks(kernel: Kernel): TaskList {
  const bound = kernel.bind(taskStruct);
  const { tasks: head } = bound.at(kernel.symbol('init_task'));
  const { nodes, damage } = listRead(kernel, head, MAX_TASKS);
  const tasks = nodes.map((node) => node - BigInt(bound.offsetOf('tasks')));
  if (damage === undefined) return { tasks, lost: [], damage: [], isComplete: true };
  const table = tasksByPid(kernel);
  return {
    tasks: [...new Set([...tasks, ...table.tasks])],
    lost: table.lost,
    damage: [`the list of tasks: ${damage}`, ...table.damage],
    isComplete: table.isWhole,
  };
}
