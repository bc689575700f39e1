import { taskPtRegs } from '../linux/arch/index.ts';
import { wasInUserMode } from '../linux/current.ts';
import { ioUringTaskStruct, requestsOfTask } from '../linux/io-uring-types.ts';
import type { RunningTasks } from '../linux/readers/running-tasks.ts';
import { PF, type Task } from '../linux/sched.ts';
import { type Findings, refuseForNow } from '../model/verdict.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { ThreadOwner } from './calls/interrupted-call.ts';

/**
 * A thread that has used a ring counts the requests that it has made: none may be in flight, of rings that
 * are closed either. Rings that it uses without a descriptor (IORING_REGISTER_RING_FDS) are not made again.
 *
 * @param address `task_struct.io_uring`
 */
function findProblems(kernel: Kernel, tid: number, address: bigint, findings: Findings): void {
  const { registered_rings, work } = kernel.bind(ioUringTaskStruct).at(address);
  if (requestsOfTask(kernel, address) !== 0 || work !== 0n)
    refuseForNow(findings, `thread ${tid} has requests in flight in an io_uring`, 'passing');
  if (registered_rings.some((file) => file !== 0n))
    findings.reasons.push(`thread ${tid} uses an io_uring by a registered descriptor`);
}

/**
 * The descriptors of rings are files of their own (`files/io-uring.ts`). Of a process that comes back for its
 * procedure alone they are lost: what was asked for and not answered may have been done.
 */
export function captureRings(
  kernel: Kernel,
  { pid: tid, io_uring: address = 0n }: Pick<Task, 'pid' | 'io_uring'>,
  { findings, forProcedure }: Pick<ThreadOwner, 'findings' | 'forProcedure'>,
): void {
  if (address === 0n) return;
  if (!forProcedure) {
    try {
      findProblems(kernel, tid, address, findings);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      findings.reasons.push(`thread ${tid} uses an io_uring that cannot be read: ${error.message}`);
    }
    return;
  }
  const of = `io_uring of thread ${tid}`;
  findings.unexpected.push({ kind: 'descriptors', of, what: `the ${of} is gone` });
  const reason = 'requests that had not been answered may or may not have taken effect';
  findings.inDoubt.push({ tid, syscall: 'io_uring', reason });
}

/**
 * A thread of the kernel's own, which works on requests of an io_uring. Those who made them count them:
 * without any it has nothing to do, and the kernel makes another when one is needed. One that polls a ring
 * (IORING_SETUP_SQPOLL) makes requests itself, and counts them.
 */
export function isRingWorker({ flags, io_uring = 0n }: Pick<Task, 'flags' | 'io_uring'>): boolean {
  return (flags & PF.ioWorker) !== 0 && io_uring === 0n;
}

/** They hold files of which their arguments do not tell. */
const POLLS = ['poll', 'ppoll', 'select', 'pselect6', 'restart_syscall'] as const;

/**
 * The waits of threads that may hold an open file: the descriptor of one in io_uring_enter(2), undefined for
 * one that waits for several. A thread in user mode on a CPU waits in none: the registers on its kernel stack
 * are those of a call that has ended.
 */
export function waitsForFiles(
  kernel: Kernel,
  threads: readonly Pick<Task, 'address' | 'pid' | 'stack'>[],
  { cpuOf }: Pick<RunningTasks, 'cpuOf'>,
): (number | undefined)[] {
  const { systemCalls } = kernel.architecture;
  const enter = systemCalls.number('io_uring_enter');
  const polls = new Set(POLLS.map((name) => systemCalls.number(name)));
  return threads.flatMap(({ address, pid, stack }) => {
    const cpu = cpuOf.get(address);
    if (cpu !== undefined && wasInUserMode(kernel, cpu, pid) === true) return [];
    const registers = taskPtRegs(kernel, stack);
    const number = Number(BigInt.asIntN(64, registers.orig_ax));
    if (number === enter) return [Number(BigInt.asUintN(32, registers.di))];
    return polls.has(number) ? [undefined] : [];
  });
}
