import { PF, type Task } from '../../linux/sched.ts';
import type { PosixTimer } from '../../model/process.ts';
import { type Findings, type InDoubt, refuseForNow } from '../../model/verdict.ts';
import type { ThreadOwner, ThreadSource } from '../calls/interrupted-call.ts';
import { syscallRow } from '../calls/syscall-table.ts';
import { type UnfinishedCall, unfinishedCall } from '../calls/unfinished-call.ts';
import { captureCredentials } from '../credentials.ts';
import { capturePending } from '../pending.ts';
import { captureRings } from '../rings.ts';
import { passingProblems } from '../task-attributes.ts';
import { threadOfClock } from '../timers.ts';
import { underWay } from './under-way.ts';

/** What a thread was doing, as far as its kernel stack tells; how much of a call it had done nobody says. */
function whereabouts({ on_cpu }: Task, call: UnfinishedCall | undefined): string {
  if (on_cpu !== 0) return ', which was on a CPU';
  return call === undefined ? '' : `, which was in ${call.name}`;
}

/** A call that may have done something that somebody else sees. */
function doubtOf({ pid: tid }: Task, call: UnfinishedCall | undefined): InDoubt[] {
  if (call === undefined || syscallRow(call.name).isIdle === true) return [];
  const { name: syscall, fd } = call;
  const reason = 'its thread is gone, and nothing tells how much of it was done';
  return [{ tid, syscall, ...(fd === undefined ? {} : { fd }), reason }];
}

/**
 * A thread without which its process comes back for its procedure alone. What is under way for the whole
 * process by it, an execve or an end, stays a reason.
 */
export function loseThread({ kernel }: Pick<ThreadSource, 'kernel'>, task: Task, owner: ThreadOwner): void {
  const { findings } = owner;
  const { pid: tid, comm } = task;
  const say = (problem: string) => refuseForNow(findings, `thread ${tid} ${problem}`, 'passing');
  passingProblems(kernel, task).forEach(say);
  underWay(kernel, task).forEach(say);
  const pending = capturePending(kernel, task.pendingList, task.pendingSignal);
  if (pending.killed) say('was being killed');
  if (pending.stopped) owner.stopping = true;
  captureRings(kernel, task, owner);
  // The kernel's own threads for rings are none of the program's.
  if ((task.flags & (PF.ioWorker | PF.userWorker)) !== 0) return;
  // Rights that contradict themselves are damage, whosever they are.
  findings.reasons.push(...captureCredentials(kernel, task).problems.map((why) => `thread ${tid} ${why}`));
  const call = unfinishedCall(kernel, task);
  findings.unexpected.push({
    ...{ kind: 'threads', of: `thread ${tid}`, tid },
    what: `thread ${tid} (${comm}) is gone${whereabouts(task, call)}`,
  });
  findings.inDoubt.push(...doubtOf(task, call));
}

/** The timers of a process but those that notify a thread which is lost, or count its CPU time. */
export function withoutTimersOf(
  gone: readonly Task[],
  timers: readonly PosixTimer[],
  { unexpected }: Findings,
): PosixTimer[] {
  const tids = new Set(gone.map(({ pid }) => pid));
  return timers.filter(({ id, notifyThread, clock }) => {
    const uses = [
      { tid: notifyThread, how: 'notified' },
      { tid: threadOfClock(clock), how: 'counted the CPU time of' },
    ];
    for (const { tid, how } of uses) {
      if (tid === undefined || !tids.has(tid)) continue;
      const what = `timer ${id} (timer_create) is gone: it ${how} thread ${tid}`;
      unexpected.push({ kind: 'threads', of: `timer ${id}`, tid, what });
      return false;
    }
    return true;
  });
}
