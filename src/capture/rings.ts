import { taskPtRegs } from '../linux/arch/index.ts';
import { ioUringTaskStruct, requestsOfTask } from '../linux/io-uring-types.ts';
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
 * without any it has nothing to do, and the kernel makes another when one is needed.
 */
export function isRingWorker({ flags }: Pick<Task, 'flags'>): boolean {
  return (flags & PF.ioWorker) !== 0;
}

/** How many threads are in io_uring_enter(2). */
export function waitingInRings(kernel: Kernel, threads: readonly Pick<Task, 'stack'>[]): number {
  const number = kernel.architecture.systemCalls.number('io_uring_enter');
  return threads.filter(({ stack }) => {
    return Number(BigInt.asIntN(64, taskPtRegs(kernel, stack).orig_ax)) === number;
  }).length;
}
