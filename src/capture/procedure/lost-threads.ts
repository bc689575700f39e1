import { taskPtRegs } from '../../linux/arch/index.ts';
import { PF, type Task } from '../../linux/sched.ts';
import type { PosixTimer } from '../../model/process.ts';
import { type Findings, refuseForNow } from '../../model/verdict.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { ThreadOwner, ThreadSource } from '../calls/interrupted-call.ts';
import { capturePending } from '../pending.ts';
import { captureRings } from '../rings.ts';
import { passingProblems } from '../task-attributes.ts';

/** What a thread was doing, as far as its kernel stack tells; how much of a call it had done nobody says. */
function whereabouts(kernel: Kernel, task: Task): string {
  // What it put on its stack may be of another time.
  if (task.on_cpu !== 0) return ', which was on a CPU';
  const number = readable(() => Number(BigInt.asIntN(64, taskPtRegs(kernel, task.stack).orig_ax))) ?? -1;
  return number < 0 ? '' : `, which was in ${kernel.architecture.systemCalls.name(number)}`;
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
  const pending = capturePending(kernel, task.pendingList, task.pendingSignal);
  if (pending.killed) say('was being killed');
  if (pending.stopped) owner.stopping = true;
  captureRings(task, owner);
  // The kernel's own threads for rings are none of the program's.
  if ((task.flags & (PF.ioWorker | PF.userWorker)) !== 0) return;
  findings.unexpected.push({
    ...{ kind: 'threads', of: `thread ${tid}`, tid },
    what: `thread ${tid} (${comm}) is gone${whereabouts(kernel, task)}`,
  });
}

/** The timers of a process but those that notify a thread which is lost. */
export function withoutTimersOf(
  gone: readonly Task[],
  timers: readonly PosixTimer[],
  { unexpected }: Findings,
): PosixTimer[] {
  const tids = new Set(gone.map(({ pid }) => pid));
  return timers.filter(({ id, notifyThread }) => {
    if (notifyThread === undefined || !tids.has(notifyThread)) return true;
    unexpected.push({
      ...{ kind: 'threads', of: `timer ${id}`, tid: notifyThread },
      what: `timer ${id} (timer_create) is gone: it notified thread ${notifyThread}`,
    });
    return false;
  });
}
