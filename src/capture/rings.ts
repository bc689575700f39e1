import type { Task } from '../linux/sched.ts';
import type { ThreadOwner } from './calls/interrupted-call.ts';

/**
 * The descriptors of rings are files, which are refused or lost. What was asked by them and not answered may
 * have been done.
 */
export function captureRings(
  { pid: tid, io_uring = 0n }: Pick<Task, 'pid' | 'io_uring'>,
  { findings, forProcedure }: Pick<ThreadOwner, 'findings' | 'forProcedure'>,
): void {
  if (io_uring === 0n) return;
  const reason = 'requests that had not been answered may or may not have taken effect';
  if (!forProcedure) {
    findings.reasons.push(`thread ${tid} uses io_uring`);
    return;
  }
  const of = `io_uring of thread ${tid}`;
  findings.unexpected.push({ kind: 'descriptors', of, what: `the ${of} is gone` });
  findings.inDoubt.push({ tid, syscall: 'io_uring', reason });
}
