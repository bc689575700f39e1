import { forEachThread } from '../linux/pid.ts';
import { taskPtRegs, USER_CS, USER32_CS } from '../linux/ptrace.ts';
import { PF, type Task, taskAt } from '../linux/sched.ts';
import { hex } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type Report, table } from './report.ts';
import { cpuOf, requireTask, stateLetter } from './tasks.ts';

/** One thread, and the user registers that it last entered the kernel with. */
export interface ThreadRow {
  readonly tid: number;
  readonly state: string;
  readonly cpu: number | undefined;
  readonly running: boolean;
  /** Number of the system call that it is in; undefined if in none, or for a kernel thread. */
  readonly systemCall: number | undefined;
  readonly userIp: string | undefined;
  readonly userSp: string | undefined;
  readonly comm: string;
}

const NO_SYSTEM_CALL = 0xffff_ffff_ffff_ffffn;

function threadRow(kernel: Kernel, task: Task): ThreadRow {
  const common = {
    tid: task.pid,
    state: stateLetter(task),
    cpu: cpuOf(kernel, task),
    running: task.on_cpu !== 0,
    comm: task.comm,
  };
  const none = { systemCall: undefined, userIp: undefined, userSp: undefined };
  if ((task.flags & PF.kthread) !== 0 || task.stack === 0n) return { ...common, ...none };
  const registers = taskPtRegs(kernel, task.stack);
  const selector = registers.cs & 0xffffn;
  if (selector !== USER_CS && selector !== USER32_CS) return { ...common, ...none };
  return {
    ...common,
    systemCall:
      registers.orig_ax === NO_SYSTEM_CALL ? undefined : Number(BigInt.asIntN(32, registers.orig_ax)),
    userIp: hex(registers.ip),
    userSp: hex(registers.sp),
  };
}

/** Threads of a process: state, system call, user registers. */
export function threadsReport(kernel: Kernel, pid: number): Report {
  const leader = requireTask(kernel, pid);
  const rows: ThreadRow[] = [];
  for (const address of forEachThread(kernel, leader.address))
    rows.push(threadRow(kernel, taskAt(kernel, address)));
  const header = ['TID', 'CPU', 'ST', 'SYSCALL', 'USER IP', 'USER SP', 'COMMAND'];
  const cells = (row: ThreadRow): (string | number)[] => [
    row.tid,
    `${row.running ? '>' : ''}${row.cpu ?? '-'}`.padStart(3),
    row.state,
    String(row.systemCall ?? '-').padStart(7),
    row.userIp ?? '-',
    row.userSp ?? '-',
    row.comm,
  ];
  return { json: () => ({ pid, threads: rows }), text: () => table(header, rows.map(cells)) };
}
