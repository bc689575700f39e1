import { taskPtRegs } from '../linux/arch/index.ts';
import { ioUringTaskStruct, requestsOfTask } from '../linux/io-uring-types.ts';
import { PF, type Task } from '../linux/sched.ts';
import { refuseForNow } from '../model/verdict.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { ThreadOwner } from './calls/interrupted-call.ts';

/** Rings that a thread uses without their descriptors (IORING_REGISTER_RING_FDS) are not made again. */
function hasRegisteredRings(kernel: Kernel, address: bigint): boolean {
  return kernel
    .bind(ioUringTaskStruct)
    .at(address)
    .registered_rings.some((file) => file !== 0n);
}

/**
 * The descriptors of rings are files of their own (`files/io-uring.ts`). A thread that has used any counts the
 * requests that it has made: none may be in flight, of rings that are closed either. What was asked for and
 * not answered may have been done.
 */
export function captureRings(
  kernel: Kernel,
  { pid: tid, io_uring: address = 0n }: Pick<Task, 'pid' | 'io_uring'>,
  { findings, forProcedure }: Pick<ThreadOwner, 'findings' | 'forProcedure'>,
): void {
  if (address === 0n) return;
  const reason = 'requests that had not been answered may or may not have taken effect';
  if (!forProcedure) {
    if (requestsOfTask(kernel, address) !== 0 || kernel.bind(ioUringTaskStruct).at(address).work !== 0n)
      refuseForNow(findings, `thread ${tid} has requests in flight in an io_uring`, 'passing');
    if (hasRegisteredRings(kernel, address))
      findings.reasons.push(`thread ${tid} uses an io_uring by a registered descriptor`);
    return;
  }
  const of = `io_uring of thread ${tid}`;
  findings.unexpected.push({ kind: 'descriptors', of, what: `the ${of} is gone` });
  findings.inDoubt.push({ tid, syscall: 'io_uring', reason });
}

/**
 * A thread of the kernel's own, which works on requests of an io_uring. Those who made them count them: without
 * any it has nothing to do, and the kernel makes another when one is needed.
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
