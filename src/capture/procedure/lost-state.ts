import type { Task } from '../../linux/sched.ts';
import type { UnexpectedLoss } from '../../model/loss.ts';
import { loseInstead } from '../../model/verdict.ts';
import type { ThreadOwner, ThreadSource } from '../calls/interrupted-call.ts';

/**
 * What `find` adds is about where the thread was: of a process that comes back for its procedure alone, which
 * does not go on there, it is lost.
 */
export function ofState<T>(
  { kernel }: Pick<ThreadSource, 'kernel'>,
  { pid: tid }: Pick<Task, 'pid'>,
  { findings, forProcedure }: Pick<ThreadOwner, 'findings' | 'forProcedure'>,
  find: () => T,
): T {
  if (!forProcedure) return find();
  const lossOf = (reason: string): UnexpectedLoss => ({
    ...{ kind: 'execution', of: `thread ${tid}`, tid },
    what: `where the first thread was is gone: ${reason}`,
  });
  return loseInstead(findings, lossOf, kernel.isAlive, find);
}
