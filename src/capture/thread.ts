import type { Architecture } from '../arch/index.ts';
import { cpuOnStack } from '../linux/readers/running-tasks.ts';
import { niceOf, type Task, taskState } from '../linux/sched.ts';
import type { Rseq, SyscallOutcomeRecord, Thread, UserRegisters } from '../model/process.ts';
import { check, type Moment, ofTheMoment, refuseForNow } from '../model/verdict.ts';
import { type CapturedRegisters, captureRegisters, setsBase } from './arch/index.ts';
import { interruptedCall, type ThreadOwner, type ThreadSource } from './calls/interrupted-call.ts';
import { settleNewThread } from './calls/new-thread.ts';
import { ENOSYS } from './calls/syscall.ts';
import { captureCredentials } from './credentials.ts';
import { capturePending } from './pending.ts';
import { type Place, placeOf } from './place.ts';
import { ofState } from './procedure/lost-state.ts';
import { underWay } from './procedure/under-way.ts';
import { captureRings } from './rings.ts';
import { affinityOf, ioPriorityOf } from './scheduling.ts';
import { passingProblems, threadNotes, threadProblems } from './task-attributes.ts';

/** 6.1 accepts only this length in rseq(2), and keeps none. */
const RSEQ_BYTES = 32;
/** Offset of `rseq_cs` in struct rseq (include/uapi/linux/rseq.h). */
const RSEQ_CS = 8n;
/** struct rseq_cs: version and flags, start_ip, post_commit_offset, abort_ip. */
const RSEQ_CS_BYTES = 32;
/** Size of struct robust_list_head, the only one set_robust_list(2) takes. */
const ROBUST_LIST_BYTES = 24;
/** Nanoseconds (init/init_task.c). */
const DEFAULT_TIMER_SLACK = 50_000n;
const SCHED_RESET_ON_FORK = 0x4000_0000;

/** Signals that no mask can hold: SIGKILL and SIGSTOP. */
const UNMASKABLE = (1n << 8n) | (1n << 18n);

/** Whose memory is read, and where it goes what cannot be told. */
type MemoryOwner = Pick<ThreadOwner, 'user' | 'findings'>;

type MaskedTask = Pick<
  Task,
  'pid' | '__state' | 'blocked' | 'real_blocked' | 'saved_sigmask' | 'restore_sigmask'
>;

/**
 * Some calls put a mask in force for their own time only, and save the real one: ppoll and their like in
 * `saved_sigmask`, sigtimedwait in `real_blocked`. sigsuspend saves it, too, but says so (`restore_sigmask`)
 * only when its sleep is over.
 */
export function blockedSignals(
  architecture: Architecture,
  task: MaskedTask,
  registers: UserRegisters,
  owner: MemoryOwner,
): bigint {
  if (task.real_blocked !== 0n) return task.real_blocked;
  if (task.restore_sigmask || isSuspended(architecture, task, registers, owner)) return task.saved_sigmask;
  return task.blocked;
}

/**
 * What a thread has at an address; undefined where nothing is mapped. Where that cannot be told, its process
 * is refused: `what` is how it matters.
 */
function readUser(
  { user, findings }: MemoryOwner,
  address: bigint,
  length: number,
  what: string,
): Buffer | undefined {
  const read = user.read(address, length);
  if (read.kind === 'bytes') return read.bytes;
  if (read.kind !== 'unknown') return undefined;
  const reason = `${what} cannot be told: ${read.why}`;
  ofTheMoment(findings, read.isStored === true ? 'unseen' : undefined, () => findings.reasons.push(reason));
  return undefined;
}

/** In sigsuspend(), with its mask in force (kernel/signal.c). */
function isSuspended(
  { systemCalls }: Architecture,
  task: MaskedTask,
  registers: UserRegisters,
  owner: MemoryOwner,
): boolean {
  if (systemCalls.name(systemCalls.current(registers)) !== 'rt_sigsuspend') return false;
  if (systemCalls.result(registers) !== ENOSYS) return false;
  if ((task.__state & taskState.interruptible) !== 0) return true;
  const what = `which signals thread ${task.pid}, which was in rt_sigsuspend, has blocked`;
  const mask = readUser(owner, systemCalls.arguments(registers)[0] ?? 0n, 8, what)?.readBigUInt64LE();
  return mask !== undefined && task.blocked === (mask & ~UNMASKABLE);
}

/**
 * Registers after the kernel's own treatment of a restartable sequence that was preempted: at its abort
 * handler.
 */
export function abortRseq(
  { pid }: Pick<Task, 'pid'>,
  owner: MemoryOwner,
  rseq: Rseq | undefined,
  registers: UserRegisters,
): UserRegisters {
  if (rseq === undefined || rseq.criticalSection === 0n) return registers;
  const what = `whether thread ${pid} was in a restartable sequence (rseq)`;
  const section = readUser(owner, rseq.criticalSection, RSEQ_CS_BYTES, what);
  if (section === undefined) return registers;
  const inside = registers.ip - section.readBigUInt64LE(8);
  if (inside < 0n || inside >= section.readBigUInt64LE(16)) return registers;
  return { ...registers, ip: section.readBigUInt64LE(24) };
}

function rseqOf(task: Task, owner: ThreadOwner): Rseq | undefined {
  if (task.rseq === 0n) return undefined;
  const what = `whether thread ${task.pid} was in a restartable sequence (rseq)`;
  const cs = readUser(owner, task.rseq + RSEQ_CS, 8, what);
  return {
    pointer: task.rseq,
    sizeBytes: task.rseq_len ?? RSEQ_BYTES,
    signature: task.rseq_sig,
    criticalSection: cs?.readBigUInt64LE(0) ?? 0n,
  };
}

/**
 * C libraries keep the thread pointer's own value where it points to; programs without one may keep anything
 * there.
 */
function checkThreadPointer(task: Task, fsBase: bigint, { user, findings }: ThreadOwner): void {
  if (fsBase === 0n) return;
  const what = `FS base of thread ${task.pid} against its thread control block`;
  const self = user.read(fsBase, 8);
  if (self.kind === 'bytes') check(findings, what, fsBase, self.bytes.readBigUInt64LE(0));
  else if (self.kind === 'unknown') findings.notes.push(`${what} was not checked: ${self.why}`);
}

/**
 * Segment bases of a task on a CPU that may be older than the processor's. Stage zero saves the GS base; the
 * FS base is gone when a processor is started.
 */
export function staleBases(
  bases: CapturedRegisters['olderBases'],
  { user, vmas }: Pick<ThreadOwner, 'user' | 'vmas'>,
): string[] {
  return bases
    .filter((base) => setsBase(base, user, vmas))
    .map((base) => {
      const name = base.toUpperCase();
      return `was on a CPU, and may have set its ${name} base itself: its code has WR${name}BASE`;
    });
}

/** Of a thread whose registers may be of another time: what it put down then is no call that it was in. */
const NOT_KNOWN: SyscallOutcomeRecord = {
  ...{ outcome: 'in-doubt', syscall: undefined },
  reason: 'nothing tells where it was',
};

/**
 * Captures one live thread. What cannot be kept goes to `owner.findings.reasons`; throws a VmcoreError if a
 * structure cannot be read.
 */
export function captureThread(source: ThreadSource, task: Task, owner: ThreadOwner): Thread {
  const { kernel } = source;
  const { findings } = owner;
  const say = (problem: string) => findings.reasons.push(`thread ${task.pid} ${problem}`);
  const sayForNow = (problem: string) => refuseForNow(findings, `thread ${task.pid} ${problem}`, 'passing');
  const place = placeOf(source, task);
  const { lost } = place;
  if (lost !== undefined) ofState(source, task, owner, () => refuseForNow(findings, lost, 'on-cpu'));
  threadProblems(task).forEach(say);
  captureRings(kernel, task, owner);
  passingProblems(kernel, task).forEach(sayForNow);
  if (owner.forProcedure) underWay(kernel, task).forEach(sayForNow);
  findings.notes.push(...threadNotes(task));
  const pending = capturePending(kernel, task.pendingList, task.pendingSignal);
  if (pending.killed) sayForNow('was being killed');
  if (pending.stopped) owner.stopping = true;
  const cred = captureCredentials(kernel, task);
  cred.problems.forEach(say);
  const seccomp = source.seccomp.of(task);
  if (seccomp.problem !== undefined) say(seccomp.problem);
  return {
    tid: task.pid,
    comm: task.comm,
    ...captureState(source, task, owner, place),
    clearChildTid: task.clear_child_tid,
    robustList: { head: task.robust_list, sizeBytes: task.robust_list === 0n ? 0 : ROBUST_LIST_BYTES },
    pendingSignals: pending.signals,
    altStack: { sp: task.sas_ss_sp, sizeBytes: task.sas_ss_size, flags: task.sas_ss_flags },
    parentDeathSignal: task.pdeath_signal,
    credentials: cred.credentials,
    seccomp: seccomp.filter,
    policy: task.policy + (task.sched_reset_on_fork ? SCHED_RESET_ON_FORK : 0),
    nice: niceOf(task),
    rtPriority: task.rt_priority,
    cpus: affinityOf(kernel, task),
    ioPriority: ioPriorityOf(kernel, task),
    timerSlackNanoseconds:
      task.timer_slack_ns === DEFAULT_TIMER_SLACK ? undefined : Number(task.timer_slack_ns),
  };
}

/**
 * What a thread goes on with: its registers, and what follows from them. What is wrong with the values of
 * them is of the moment if the thread is on a CPU; stage zero saves others, with which nothing or something
 * else may be wrong.
 */
function captureState(
  source: ThreadSource,
  task: Task,
  owner: ThreadOwner,
  { onCpu, lost }: Place,
): Pick<Thread, 'registers' | 'fpu' | 'tls' | 'rseq' | 'blockedSignals' | 'syscall'> {
  const { kernel } = source;
  const { findings } = owner;
  const say = (problem: string) => findings.reasons.push(`thread ${task.pid} ${problem}`);
  const moment: Moment | undefined = onCpu === undefined && lost === undefined ? undefined : 'passing';
  const captured = captureRegisters(kernel, task, lost === undefined ? onCpu : undefined);
  captured.problems.forEach(say);
  ofState(source, task, owner, () => captured.problemsOfState.forEach(say));
  ofTheMoment(findings, moment, () => captured.problemsOfValues.forEach(say));
  findings.notes.push(...captured.notes);
  // That stage zero saves a CPU's registers does not help here.
  const isUnknown = (onCpu !== undefined && kernel.isAlive) || (lost !== undefined && owner.forProcedure);
  const bases = isUnknown ? (['fs', 'gs'] as const) : captured.olderBases;
  ofTheMoment(findings, 'passing', () => staleBases(bases, owner).forEach(say));
  return ofTheMoment(findings, moment, () => {
    checkThreadPointer(task, captured.registers.fsBase, owner);
    const blocked = blockedSignals(kernel.architecture, task, captured.registers, owner);
    const notes = findings.notes.length;
    const isLost = owner.forProcedure && (lost !== undefined || captured.problemsOfState.length > 0);
    const state = ofState(source, task, owner, () => {
      const rseq = rseqOf(task, owner);
      if (isLost) {
        const { registers, fpu, tls } = captured;
        return { registers, fpu, tls, rseq, blockedSignals: blocked, syscall: NOT_KNOWN };
      }
      const call = ofTheMoment(findings, 'passing', () => {
        const found = interruptedCall(source, task, captured.registers, blocked, owner);
        const cpu = cpuOnStack(kernel, source.running, task);
        const result = kernel.architecture.systemCalls.result(captured.registers);
        settleNewThread(kernel, task, cpu, { name: found.record.syscall, result }, owner);
        return found;
      });
      return {
        registers: abortRseq(task, owner, rseq, call.registers),
        ...{ fpu: captured.fpu, tls: captured.tls, rseq, blockedSignals: blocked },
        syscall: call.record,
      };
    });
    // They are about how its call goes on, which it does not.
    if (owner.forProcedure) findings.notes.splice(notes);
    return state;
  });
}
