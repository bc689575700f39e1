import { taskPtRegs } from '../linux/arch/index.ts';
import { forEachThread } from '../linux/pid.ts';
import { PF, schedPolicy, type Task, taskAt } from '../linux/sched.ts';
import { signalStruct } from '../linux/signal.ts';
import { hex, isDamage, readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { alignedTable, type Inspection } from './inspection.ts';
import { commOf, requireTask, stateLetter } from './tasks.ts';

/** One thread, and the user registers that it last entered the kernel with. */
export interface ThreadRow {
  readonly tid: number;
  readonly state: string;
  readonly cpu: number | undefined;
  readonly running: boolean;
  /** Scheduling policy: its name, the number where it has none, `?` where it cannot be read. */
  readonly policy: string;
  /** Number of the system call that it is in; undefined if in none, or for a kernel thread. */
  readonly systemCall: number | undefined;
  readonly userIp: string | undefined;
  readonly userSp: string | undefined;
  readonly comm: string;
  /** Why parts of it are not known. */
  readonly problem?: string;
}

const NO_SYSTEM_CALL = 0xffff_ffff_ffff_ffffn;

const policyNames: ReadonlyMap<number, string> = new Map(
  Object.entries(schedPolicy).map(([name, policy]) => [policy, name]),
);

function policyName({ policy }: Task): string {
  return policyNames.get(policy) ?? String(policy);
}

function threadRow(kernel: Kernel, task: Task): ThreadRow {
  const common = {
    tid: task.pid,
    state: stateLetter(task),
    cpu: task.cpu,
    running: task.on_cpu !== 0,
    policy: policyName(task),
    comm: commOf(task),
  };
  const none = { systemCall: undefined, userIp: undefined, userSp: undefined };
  if ((task.flags & PF.kthread) !== 0 || task.stack === 0n) return { ...common, ...none };
  const registers = taskPtRegs(kernel, task.stack);
  if (!kernel.architecture.notes.isUserMode(registers)) return { ...common, ...none };
  return {
    ...common,
    systemCall:
      registers.orig_ax === NO_SYSTEM_CALL ? undefined : Number(BigInt.asIntN(32, registers.orig_ax)),
    userIp: hex(registers.ip),
    userSp: hex(registers.sp),
  };
}

/** A row of a thread of which parts cannot be read. */
function readableRow(kernel: Kernel, address: bigint): ThreadRow {
  const task = taskAt(kernel, address);
  try {
    return threadRow(kernel, task);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return {
      tid: readable(() => task.pid) ?? -1,
      state: readable(() => stateLetter(task)) ?? '?',
      cpu: readable(() => task.cpu),
      running: readable(() => task.on_cpu !== 0) ?? false,
      policy: readable(() => policyName(task)) ?? '?',
      ...{ systemCall: undefined, userIp: undefined, userSp: undefined },
      comm: readable(() => commOf(task)) ?? '?',
      problem: error.message,
    };
  }
}

/**
 * The threads that are on the list of a process, and what is wrong with that list: the kernel counts them as
 * well.
 */
function readThreads(kernel: Kernel, leader: Task): { rows: ThreadRow[]; missing: string[] } {
  const rows: ThreadRow[] = [];
  try {
    for (const address of forEachThread(kernel, leader.address)) rows.push(readableRow(kernel, address));
    const { nr_threads: counted } = kernel.bind(signalStruct).at(leader.signal);
    const missing =
      counted === rows.length ? [] : [`the kernel counted ${counted} threads, ${rows.length} were found`];
    return { rows, missing };
  } catch (error) {
    if (!isDamage(error)) throw error;
    return { rows, missing: [`threads are missing: ${error.message}`] };
  }
}

/** Threads of a process: state, scheduling policy, system call, user registers. */
export function threadsInspection(kernel: Kernel, pid: number): Inspection {
  const { rows, missing } = readThreads(kernel, requireTask(kernel, pid));
  const header = ['TID', 'CPU', 'ST', 'POLICY', 'SYSCALL', 'USER IP', 'USER SP', 'COMMAND'];
  const cells = (row: ThreadRow): (string | number)[] => [
    row.tid,
    `${row.running ? '>' : ''}${row.cpu ?? '-'}`.padStart(3),
    row.state,
    row.policy,
    String(row.systemCall ?? '-').padStart(7),
    row.userIp ?? '-',
    row.userSp ?? '-',
    row.problem === undefined ? row.comm : `${row.comm} --- ${row.problem}`,
  ];
  return {
    json: () => ({ pid, threads: rows, missing }),
    text: () =>
      [alignedTable(header, rows.map(cells)), ...missing.map((sentence) => `--- ${sentence}`)].join('\n'),
    problems: [
      ...missing,
      ...rows.flatMap(({ tid, problem }) => (problem === undefined ? [] : [`thread ${tid}: ${problem}`])),
    ],
  };
}
