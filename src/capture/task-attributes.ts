import { sessionKeys } from '../linux/key.ts';
import { hasThreadFlag, PF, PFA, schedPolicy, type Task, TIF } from '../linux/sched.ts';
import { autogroupNice, type Signal } from '../linux/signal.ts';
import { permittedTracers } from '../linux/yama.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { isBeforeExec } from './calls/exec.ts';

/** Those that CRIU sets. */
const restorablePolicies: ReadonlySet<number> = new Set([
  schedPolicy.other,
  schedPolicy.fifo,
  schedPolicy.rr,
  schedPolicy.batch,
  schedPolicy.idle,
]);
/** PR_SET_IO_FLUSHER sets both (kernel/sys.c). */
const IO_FLUSHER = PF.memallocNoio | PF.localThrottle;
/** XFEATURE_XTILE_DATA, which a process has to ask for (arch_prctl ARCH_REQ_XCOMP_PERM). */
const AMX = 1n << 18n;

function policyProblem({ policy }: Task): string | undefined {
  if (policy === schedPolicy.deadline) return 'has the deadline scheduling policy';
  return restorablePolicies.has(policy) ? undefined : `has scheduling policy ${policy}`;
}

/** What a thread has asked the kernel for and nobody can give it again. */
export function threadProblems(task: Task): string[] {
  const { permissions } = task.thread;
  const problems: (string | false | undefined)[] = [
    policyProblem(task),
    task.ptrace !== 0 && 'is traced by a debugger',
    (task.dispatchOffset !== 0n || task.dispatchSelector !== 0n) &&
      'has its system calls redirected (syscall user dispatch)',
    (task.compat_robust_list ?? 0n) !== 0n && 'has a 32-bit robust list',
    (!task.atomic_flags.isBelow(PFA.specSsbDisable) || hasThreadFlag(task, TIF.specL1dFlush)) &&
      'has limits on speculative execution of its own (prctl)',
    (task.core_cookie ?? 0n) !== 0n && 'shares a core with its own kind only (core scheduling)',
    (task.user_event_mm ?? 0n) !== 0n && 'has registered user events for tracing',
    ((permissions ?? 0n) & AMX) !== 0n && 'has asked for AMX registers (arch_prctl)',
  ];
  return problems.filter((problem): problem is string => typeof problem === 'string');
}

/** What is as bad, and over a moment later. */
export function passingProblems(kernel: Kernel, task: Task): string[] {
  return task.in_execve && !isBeforeExec(kernel, task) ? ['was in the middle of execve'] : [];
}

/** What a thread loses without a change in what it computes; sentences for the report. */
export function threadNotes(task: Task): string[] {
  const lost: (string | false)[] = [
    (task.mempolicy ?? 0n) !== 0n && 'NUMA memory policy (set_mempolicy)',
    (task.uclampMin === 1 || task.uclampMax === 1) && 'utilization clamps (sched_setattr)',
    (task.custom_slice ?? 0) !== 0 && 'time slice (sched_setattr)',
    (task.flags & (PF.mceProcess | PF.mceEarly)) !== 0 && 'policy on memory errors (PR_MCE_KILL)',
    (task.flags & IO_FLUSHER) === IO_FLUSHER && 'mark as an I/O flusher (PR_SET_IO_FLUSHER)',
  ];
  return lost
    .filter((what): what is string => typeof what === 'string')
    .map((what) => `thread ${task.pid} has lost its ${what}`);
}

/** The same for what belongs to a whole process. */
export function processNotes(kernel: Kernel, leader: Task, signal: Signal): string[] {
  const notes: string[] = [];
  const { oom_score_adj: score, oom_score_adj_min: lowest } = signal;
  if (lowest < score)
    notes.push(`it can no longer lower its oom_score_adj from ${score} to ${lowest} without privilege`);
  const nice = autogroupNice(kernel, signal);
  if (nice !== 0) notes.push(`the nice value ${nice} of its autogroup is lost`);
  const tracers = permittedTracers(kernel, leader.address);
  if (tracers > 0) notes.push(`${tracers} permissions to trace it (PR_SET_PTRACER) are lost`);
  return notes;
}

/** systemd puts the id of a service's start into its session keyring; INVOCATION_ID says the same. */
const INVOCATION = 'user invocation_id';

/** Keys of the session keyring that are lost with it, the system's own left out: `user NAME`. */
export function lostKeys(kernel: Kernel, keyring: bigint): string[] {
  return sessionKeys(kernel, keyring)
    .map(({ type, description }) => `${type} ${description}`)
    .filter((key) => key !== INVOCATION);
}
