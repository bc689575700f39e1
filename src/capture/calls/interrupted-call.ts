import { constants } from 'node:os';
import type { Architecture, SystemCalls } from '../../arch/index.ts';
import { coarseness } from '../../linux/readers/clocks.ts';
import { type Deadlines, sleepDeadline } from '../../linux/readers/hrtimer-sleeper.ts';
import { restartDeadline, restartedCall } from '../../linux/readers/restarted-call.ts';
import { cpuOnStack, type RunningTasks } from '../../linux/readers/running-tasks.ts';
import type { UserMemory } from '../../linux/readers/user-memory.ts';
import type { Task } from '../../linux/sched.ts';
import type { KernelSigaction } from '../../linux/signal.ts';
import { type Clocks, clockReading } from '../../linux/timekeeping.ts';
import type { Vma } from '../../model/memory.ts';
import type { SyscallOutcomeRecord, UserRegisters } from '../../model/process.ts';
import { type Findings, ofTheMoment } from '../../model/verdict.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { LiveCpus } from '../arch/index.ts';
import type { SeccompFilters } from '../seccomp.ts';
import type { KnownResult } from './call-witness.ts';
import { decideSyscall, EINTR_RESULT, ERESTART_RESTARTBLOCK, type SyscallDecision } from './syscall.ts';
import { syscallState } from './syscall-state.ts';
import { takesDescriptor } from './syscall-table.ts';
import {
  canPatch,
  hasRelativeTimeout,
  isReadable,
  isToldTheRest,
  type MemoryPatch,
  toldRest,
  withRemainingTime,
} from './timeout.ts';
import type { Vforks } from './vfork.ts';

/** What all threads of a capture have in common. */
export interface ThreadSource {
  readonly kernel: Kernel;
  readonly running: RunningTasks;
  readonly liveCpus: LiveCpus;
  /**
   * Address of the task on the CPU that panicked; all that were executing if it cannot be told which of them
   * it was.
   */
  readonly panicked: ReadonlySet<bigint>;
  readonly clocks: Clocks;
  readonly deadlines: Deadlines;
  readonly vforks: Vforks;
  readonly seccomp: SeccompFilters;
}

/** What a thread shares with the others of its process. */
export interface ThreadOwner {
  readonly findings: Findings;
  readonly sigactions: readonly KernelSigaction[];
  /** Signals pending for the whole process. */
  readonly sharedPending: bigint;
  /** The thread that gets the SIGCHLD that was added to those: a child was ending, and has ended. */
  readonly noticeTo: bigint | undefined;
  readonly vmas: readonly Vma[];
  /** The memory of the process. */
  readonly user: UserMemory;
  /** Filled with what has to change in memory for calls that are made again. */
  readonly patches: MemoryPatch[];
  /** Set if a thread has SIGSTOP pending. */
  stopping: boolean;
  /** Its process comes back for its crash procedure alone: where the thread was does not matter. */
  readonly forProcedure: boolean;
}

const SA_RESTART = 0x1000_0000n;
const SIGCHLD_BIT = 1n << BigInt(constants.signals.SIGCHLD - 1);

/** Calls that look for a child that has ended before they look for a signal (do_wait, kernel/exit.c). */
const waits: ReadonlySet<string> = new Set(['wait4', 'waitid']);

function handlers(
  call: string,
  task: Task,
  owner: ThreadOwner,
  blocked: bigint,
): { any: boolean; noRestart: boolean } {
  const notice = owner.noticeTo === task.address && !waits.has(call) ? SIGCHLD_BIT : 0n;
  const deliverable = (task.pendingSignal | owner.sharedPending | notice) & ~blocked;
  let any = false;
  let noRestart = false;
  for (const [i, action] of owner.sigactions.entries()) {
    if (((deliverable >> BigInt(i)) & 1n) === 0n || action.handler <= 1n) continue;
    any = true;
    if ((action.flags & SA_RESTART) === 0n) noRestart = true;
  }
  return { any, noRestart };
}

/** The handler of the SIGCHLD that a thread gets because a child has ended; undefined if there is none. */
function noticeOf(
  { address }: Task,
  { noticeTo, sigactions }: ThreadOwner,
  blocked: bigint,
): { restarts: boolean } | undefined {
  const { handler = 0n, flags = 0n } = sigactions[constants.signals.SIGCHLD - 1] ?? {};
  const isFor = noticeTo === address && (blocked & SIGCHLD_BIT) === 0n && handler > 1n;
  return isFor ? { restarts: (flags & SA_RESTART) !== 0n } : undefined;
}

function applyDecision(
  calls: SystemCalls,
  registers: UserRegisters,
  decision: SyscallDecision,
): UserRegisters {
  switch (decision.outcome) {
    case 'resume':
    case 'refuse':
      return registers;
    case 'restart':
      return calls.again(registers);
    case 'result':
      return calls.returning(registers, decision.value);
    default:
      return calls.returning(registers, EINTR_RESULT);
  }
}

/**
 * Why a call cannot be made again: it can only where the instruction before the return address is `syscall`.
 * A page of a program that was not used for long may be in its file only; then the registers tell, of which
 * that instruction leaves two twice (Intel SDM, volume 2, SYSCALL).
 */
export function problemOfReturn(
  { instruction, isBehindCall }: Pick<SystemCalls, 'instruction' | 'isBehindCall'>,
  user: UserMemory,
  registers: Pick<UserRegisters, 'ip' | 'cx' | 'flags' | 'r11'>,
): string | undefined {
  const code = user.read(registers.ip - BigInt(instruction.length), instruction.length);
  if (code.kind === 'unknown' && isBehindCall(registers)) return undefined;
  if (code.kind === 'unknown')
    return `whether there is a syscall instruction where it returns to cannot be told: ${code.why}`;
  const isSyscall = code.kind === 'bytes' && code.bytes.equals(instruction);
  return isSyscall ? undefined : 'there is no syscall instruction where it returns to';
}

/**
 * Why a thread outside the kernel cannot go on: its next instruction would be restart_syscall(2), by which
 * the kernel had it go on with a call, and the next kernel knows of none.
 */
export function problemOfRestart(
  { restartAhead }: Pick<SystemCalls, 'restartAhead'>,
  user: Pick<UserMemory, 'read'>,
  registers: Pick<UserRegisters, 'ip' | 'ax' | 'cx'>,
): string | undefined {
  const ahead = restartAhead(registers);
  if (ahead === undefined) return undefined;
  const code = user.read(registers.ip, ahead.instruction.length);
  const isAhead = code.kind === 'bytes' ? code.bytes.equals(ahead.instruction) : ahead.isCertain;
  return isAhead ? 'was about to go on with a system call that nothing names (restart_syscall)' : undefined;
}

/** What becomes of a thread's system call. */
export interface Interrupted {
  readonly registers: UserRegisters;
  readonly record: SyscallOutcomeRecord;
}

/** Name of the call that a thread is in. */
function calledBy({ systemCalls }: Architecture, registers: UserRegisters): string {
  return systemCalls.name(systemCalls.current(registers));
}

/**
 * A thread that goes on with a call by restart_syscall(2) makes that call itself: the new kernel does not
 * know of it.
 */
function asMade(kernel: Kernel, task: Task, registers: UserRegisters): UserRegisters {
  const { systemCalls } = kernel.architecture;
  if (calledBy(kernel.architecture, registers) !== 'restart_syscall') return registers;
  const name = restartedCall(kernel, task, systemCalls.arguments(registers)[0] ?? 0n);
  const number = name === undefined ? undefined : systemCalls.number(name);
  return number === undefined ? registers : systemCalls.asCall(registers, number);
}

/** What was left of a call's relative timeout: see `SyscallState`. */
function timeLeftOf(
  source: ThreadSource,
  task: Task,
  registers: UserRegisters,
): bigint | 'unknown' | undefined {
  const { kernel, deadlines, clocks } = source;
  const { systemCalls } = kernel.architecture;
  const name = calledBy(kernel.architecture, registers);
  if (!hasRelativeTimeout(name, systemCalls.arguments(registers))) return undefined;
  const deadline =
    systemCalls.result(registers) === ERESTART_RESTARTBLOCK
      ? restartDeadline(kernel, task)
      : sleepDeadline(kernel, deadlines, task, cpuOnStack(kernel, source.running, task) !== undefined);
  const now = deadline === undefined ? undefined : clockReading(clocks, deadline.clock);
  if (deadline === undefined || now === undefined) return 'unknown';
  return deadline.expires > now ? deadline.expires - now : 0n;
}

/** A call that waits for its child in vfork has made it, and returns its number (kernel_clone). */
function vforkDecision({ vforks }: ThreadSource, task: Task): SyscallDecision | undefined {
  const child = vforks.childOf(task);
  if (child === undefined) return undefined;
  return { outcome: 'result', value: BigInt(child), reason: `the child ${child} is there` };
}

/** Finds out about the thread's system call, and gives it the registers with which it goes on. */
export function interruptedCall(
  source: ThreadSource,
  task: Task,
  found: UserRegisters,
  blocked: bigint,
  owner: ThreadOwner,
): Interrupted {
  const { kernel } = source;
  const { findings } = owner;
  const registers = asMade(kernel, task, found);
  const restart = problemOfRestart(kernel.architecture.systemCalls, owner.user, found);
  if (restart !== undefined) findings.reasons.push(`thread ${task.pid} ${restart}`);
  const pending = handlers(calledBy(kernel.architecture, registers), task, owner, blocked);
  const notice = noticeOf(task, owner, blocked);
  const timeLeft = timeLeftOf(source, task, registers);
  const state = syscallState(kernel, {
    ...{ task, user: owner.user, vmas: owner.vmas, registers, timeLeft },
    cpu: source.running.cpuOf.get(task.address),
    panicked: source.panicked.has(task.address),
    handlerPending: pending.any,
    wokenBy: waits.has(calledBy(kernel.architecture, registers)) ? undefined : notice,
    interruptedByHandler: pending.noRestart,
  });
  const coarse = coarseness(source.clocks);
  if (coarse !== undefined && typeof timeLeft === 'bigint')
    findings.reasons.push(
      `thread ${task.pid} waits for a time of which nothing tells how much was left: ${coarse}`,
    );
  const decision = vforkDecision(source, task) ?? decideSyscall(state);
  const { reason } = decision;
  if (state.call === undefined)
    return { registers, record: { outcome: 'resume', syscall: undefined, reason } };
  const { systemCalls } = kernel.architecture;
  const name = calledBy(kernel.architecture, registers);
  const [first = 0n] = systemCalls.arguments(registers);
  const fd = takesDescriptor(name) ? Number(BigInt.asIntN(32, first)) : undefined;
  // In the dead kernel the call would have had the child before the handler runs.
  if (decision.outcome === 'restart' && waits.has(name) && notice !== undefined) {
    const why =
      'its handler of SIGCHLD runs before it is made again, and may take the child that it waits for';
    findings.inDoubt.push({ tid: task.pid, syscall: name, fd, reason: why });
  }
  if (decision.outcome === 'in-doubt') findings.inDoubt.push({ tid: task.pid, syscall: name, fd, reason });
  if (decision.outcome === 'refuse') findings.reasons.push(`thread ${task.pid} was in ${name}: ${reason}`);
  const outcome = decision.outcome === 'refuse' ? 'in-doubt' : decision.outcome;
  const record = { outcome, syscall: name, reason };
  const after = applyDecision(systemCalls, registers, decision);
  if (decision.outcome === 'result') writeResult(state.known, task, name, owner);
  if (decision.outcome === 'eintr') tellTheRest(source, task, name, registers, timeLeft, owner);
  if (decision.outcome !== 'restart') return { registers: after, record };
  const problem = problemOfReturn(systemCalls, owner.user, registers);
  if (problem !== undefined) findings.reasons.push(`thread ${task.pid} was in ${name}, but ${problem}`);
  return { registers: forTheRest(source, task, name, after, timeLeft, owner), record };
}

/** Whose memory a result is written to, or why it is not. */
export interface ResultOwner extends Pick<ThreadOwner, 'vmas' | 'patches'> {
  readonly user: Pick<UserMemory, 'read'>;
  readonly findings: Pick<ThreadOwner['findings'], 'reasons'>;
}

/** Writes what a call writes at its end, whose result the kernel's structures show. */
export function writeResult(
  known: KnownResult | undefined,
  { pid }: Pick<Task, 'pid'>,
  name: string,
  { vmas, user, patches, findings }: ResultOwner,
): void {
  if (known?.writes === undefined) return;
  if (canPatch(vmas, known.writes) && isReadable(user, known.writes)) patches.push(known.writes);
  else findings.reasons.push(`thread ${pid} was in ${name}, and what it has done cannot be told to it`);
}

/** Tells a program whose call was ended what was left of its time, where the kernel does. */
function tellTheRest(
  { kernel }: ThreadSource,
  { pid }: Task,
  name: string,
  registers: UserRegisters,
  timeLeft: bigint | 'unknown' | undefined,
  { vmas, user, patches, findings }: ThreadOwner,
): void {
  if (timeLeft === undefined) return;
  const patch = timeLeft === 'unknown' ? undefined : toldRest(kernel.architecture, name, registers, timeLeft);
  if (patch === undefined && timeLeft !== 'unknown') return;
  if (patch !== undefined && canPatch(vmas, patch) && isReadable(user, patch)) patches.push(patch);
  else findings.notes.push(`thread ${pid} is not told how much of its time in ${name} was left`);
}

/** Registers for a call that is made again, but only for the rest of its time. */
function forTheRest(
  source: ThreadSource,
  task: Task,
  name: string,
  registers: UserRegisters,
  timeLeft: bigint | 'unknown' | undefined,
  owner: ThreadOwner,
): UserRegisters {
  const { findings } = owner;
  if (timeLeft === undefined) return registers;
  if (timeLeft === 'unknown') {
    const { damage, isChanging } = source.deadlines;
    if (damage.length > 0) {
      const reason = `thread ${task.pid} waits in ${name} for a time of which nothing tells how much was left: ${damage.join('; ')}`;
      ofTheMoment(findings, isChanging ? 'passing' : undefined, () => findings.reasons.push(reason));
    } else if (!isToldTheRest(name)) {
      findings.notes.push(`thread ${task.pid} waits in ${name} for its whole time again`);
    }
    return registers;
  }
  const changed = withRemainingTime(source.kernel.architecture, name, registers, timeLeft);
  if (changed === undefined) return registers;
  if (changed.patch === undefined) return changed.registers;
  if (!canPatch(owner.vmas, changed.patch) || !isReadable(owner.user, changed.patch)) {
    findings.notes.push(`thread ${task.pid} waits in ${name} for its whole time again`);
    return registers;
  }
  owner.patches.push(changed.patch);
  return changed.registers;
}
