import { constants } from 'node:os';
import { pidNr, pid as pidStruct } from '../linux/pid.ts';
import { PF, type Task } from '../linux/sched.ts';
import { check, type Findings } from '../model/verdict.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { namespaceProblems, type Sandboxes } from './sandboxes.ts';
import type { TaskGroup } from './tasks.ts';

const { SIGCHLD } = constants.signals;

/** Adds why a process cannot come back for the namespaces that it is in. */
export function checkNamespaces(
  { kernel, sandboxes }: { readonly kernel: Kernel; readonly sandboxes: Sandboxes },
  group: TaskGroup,
  findings: Findings,
): void {
  findings.reasons.push(...namespaceProblems(kernel, sandboxes, group.leader));
  if (kernel.bind(pidStruct).at(group.leader.thread_pid).level !== 0)
    findings.reasons.push('is in a PID namespace');
}

/**
 * Adds what threads of a process do not share that all do. Of those that do not come back it does not matter
 * that they are the kernel's own.
 */
export function checkThreadsShare(group: TaskGroup, kept: readonly Task[], findings: Findings): void {
  for (const thread of group.threads) {
    const differs = (['mm', 'files', 'fs', 'sighand', 'nsproxy', 'signal'] as const).filter(
      (member) => thread[member] !== group.leader[member],
    );
    if (differs.length > 0)
      findings.reasons.push(`thread ${thread.pid} does not share ${differs.join(', ')}`);
    if (kept.includes(thread) && (thread.flags & (PF.ioWorker | PF.userWorker)) !== 0)
      findings.reasons.push('has a kernel worker (io_uring, vhost)');
  }
}

/**
 * The list of threads against `nr_threads`, which counts those that have ended and are not reaped too, and
 * `live`, which a thread leaves first of all when it ends (do_exit, kernel/exit.c): who lives is missing from
 * the list if it has fewer.
 */
function checkThreadCount({ signal, threads, allThreads }: TaskGroup, findings: Findings): void {
  const { nr_threads: counted, live } = signal;
  const what = 'signal->nr_threads against the thread list';
  const agrees = check(findings, what, counted, allThreads.length);
  if (threads.length < live) {
    findings.reasons.push(`has ${threads.length} live threads on its list, but the kernel counted ${live}`);
  } else if (!agrees && allThreads.length < counted && threads.length !== live) {
    findings.reasons.push(`has ${allThreads.length} threads on its list, but the kernel counted ${counted}`);
  } else if (!agrees) findings.repairs.push({ what, used: 'the list', instead: 'the count' });
}

/** Adds what the kernel says of a process in two places, and says differently. */
export function checkTree(kernel: Kernel, group: TaskGroup, isEnding: boolean, findings: Findings): void {
  const { leader, threads } = group;
  checkThreadCount(group, findings);
  const what = 'task->tgid against the number of its struct pid';
  if (!check(findings, what, leader.pid, pidNr(kernel, leader.thread_pid)))
    findings.repairs.push({ what, used: 'the list', instead: 'the count' });
  if (!isEnding && threads.length > 0 && threads[0]?.pid !== leader.pid)
    findings.reasons.push('its first thread has ended, others live');
  if (leader.exit_signal !== SIGCHLD)
    findings.reasons.push(`tells its parent with signal ${leader.exit_signal}, not SIGCHLD`);
}
