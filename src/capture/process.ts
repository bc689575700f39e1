import { constants } from 'node:os';
import { fsStruct } from '../linux/fs-struct.ts';
import { mmStruct } from '../linux/mm-types.ts';
import { pidNr } from '../linux/pid.ts';
import { UserMemory } from '../linux/readers/user-memory.ts';
import { type Task, taskState } from '../linux/sched.ts';
import { isTtyAudited, pidOfRole, readLimits, readSigactions, SIGNAL, type Signal } from '../linux/signal.ts';
import type { AddressSpace } from '../model/memory.ts';
import type { Process } from '../model/process.ts';
import { type Findings, ofTheMoment, refuseForNow } from '../model/verdict.ts';
import { readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { ThreadOwner, ThreadSource } from './calls/interrupted-call.ts';
import { applyPatches, type MemoryPatch } from './calls/timeout.ts';
import { exitCodeOf } from './endings/ending.ts';
import type { Endings } from './endings/endings.ts';
import type { FileCapture } from './file-capture.ts';
import { FileRefusal } from './files/refusal.ts';
import type { MemoryCapture } from './memory/memory.ts';
import type { MemoryUsers } from './memory/memory-users.ts';
import { capturePending } from './pending.ts';
import { hasLostRegisters } from './place.ts';
import { loseThread, withoutTimersOf } from './procedure/lost-threads.ts';
import { checkNamespaces, checkThreadsShare, checkTree } from './process-checks.ts';
import { isRingWorker, waitsForFiles } from './rings.ts';
import type { Sandboxes } from './sandboxes.ts';
import { processNotes } from './task-attributes.ts';
import { parentPid, type TaskGroup } from './tasks.ts';
import { captureThread } from './thread.ts';
import { captureIntervalTimers, capturePosixTimers, clockRepairs, timerProblems } from './timers.ts';

/** What the capture of all processes has in common. */
export interface ProcessSource extends ThreadSource {
  readonly files: FileCapture;
  readonly memory: MemoryCapture;
  readonly memoryUsers: MemoryUsers;
  readonly endings: Endings;
  readonly sandboxes: Sandboxes;
  /** Small numbers for kernel objects that processes can share. */
  readonly ids: SharedIds;
  /** Processes that are captured for their crash procedure alone: see `UnexpectedLoss`. */
  readonly forProcedure: ReadonlySet<number>;
}

/** Numbers kernel objects from 1 on; the same address always gets the same number. */
export class SharedIds {
  readonly #ids = new Map<bigint, number>();

  of(address: bigint): number {
    let id = this.#ids.get(address);
    if (id === undefined) {
      id = this.#ids.size + 1;
      this.#ids.set(address, id);
    }
    return id;
  }
}

const { SIGSTOP } = constants.signals;
/** Bits of `jobctl`: the signal of the last group stop (JOBCTL_STOP_SIGMASK). */
const STOP_SIGNAL_MASK = 0x7f;
/**
 * `membarrier_state` bits to the registration commands of membarrier(2): the READY bit of each pair is left
 * out.
 */
const membarrierCommands: readonly (readonly [state: number, command: number])[] = [
  [1 << 1, 1 << 4],
  [1 << 3, 1 << 2],
  [1 << 5, 1 << 6],
  [1 << 7, 1 << 8],
];

/**
 * The commands with which a process registered for expedited membarriers, as MEMBARRIER_CMD_GET_REGISTRATIONS
 * says.
 */
export function membarrierRegistrations(state: number): number {
  return membarrierCommands.reduce(
    (mask, [bit, command]) => ((state & bit) !== 0 ? mask | command : mask),
    0,
  );
}

function numberOfRole(kernel: Kernel, group: TaskGroup, role: 'PIDTYPE_PGID' | 'PIDTYPE_SID'): number {
  return pidNr(kernel, pidOfRole(kernel, group.signal.address, role));
}

function stateOf(group: TaskGroup): Process['state'] {
  if (group.threads.length === 0) return 'zombie';
  const stopped = (group.signal.flags & SIGNAL.stopStopped) !== 0;
  return stopped || (group.leader.__state & taskState.stopped) !== 0 ? 'stopped' : 'alive';
}

/** Whether a live process is stopped, or was about to, by which signal, and what its parent knows of it. */
function stopOf(group: TaskGroup, stopping: boolean): Pick<Process, 'state' | 'stopSignal' | 'stopNotice'> {
  if (stateOf(group) === 'stopped') {
    const stopSignal = group.leader.jobctl.low & STOP_SIGNAL_MASK;
    return { state: 'stopped', stopSignal, stopNotice: stopNoticeOf(group.signal) };
  }
  return stopping
    ? { state: 'stopped', stopSignal: SIGSTOP, stopNotice: 'unsent' }
    : { state: 'alive', stopSignal: 0 };
}

/** wait(2) takes the code away that it is told (wait_task_stopped, kernel/exit.c). */
function stopNoticeOf({ flags, group_exit_code }: Signal): 'unsent' | 'sent' | 'taken' {
  if ((flags & SIGNAL.stopStopped) === 0) return 'unsent';
  return group_exit_code === 0 ? 'taken' : 'sent';
}

function captureMemory(
  source: ProcessSource,
  group: TaskGroup,
  kept: readonly Task[],
  findings: Findings,
): AddressSpace {
  const { mm } = group.leader;
  const { vforks, memoryUsers, ids } = source;
  const family = vforks.familyOf(group);
  const tasks = family.flatMap(({ threads }) => threads);
  const users = source.kernel.bind(mmStruct).at(mm).mm_users;
  if (!memoryUsers.isComplete && users > tasks.length) {
    findings.reasons.push('may share its address space with a process that cannot be read');
  }
  findings.reasons.push(...vforks.problems(group, memoryUsers));
  for (const reason of vforks.passingProblems(group)) refuseForNow(findings, reason, 'passing');
  findings.notes.push(...vforks.notes(group));
  const isCopy = family[0]?.pid !== group.pid;
  return source.memory.capture(mm, {
    pid: group.pid,
    threads: tasks.map(({ address }) => address),
    isRunning: tasks.some(({ address }) => source.running.cpuOf.has(address)),
    inExec: tasks.filter(({ in_execve }) => in_execve).length,
    hasLostKeyRights: kept.some((task) => hasLostRegisters(source, task)),
    memoryId: ids.of(isCopy ? group.leader.address : mm),
    copyOf: isCopy ? ids.of(mm) : undefined,
    findings,
    forProcedure: source.forProcedure.has(group.pid),
  });
}

const noTimer = { intervalMicroseconds: 0, remainingMicroseconds: 0 };

function zombie(kernel: Kernel, group: TaskGroup, exitCode: number, findings: Findings): Process {
  const { leader } = group;
  return {
    ...identity(kernel, group),
    state: 'zombie',
    exitCode,
    stopSignal: 0,
    threads: [],
    memory: undefined,
    ...{ filesId: 0, fsId: 0, sighandId: 0, cwdFileId: 0, rootFileId: 0, umask: 0 },
    personality: leader.personality,
    sigactions: [],
    sharedPendingSignals: [],
    intervalTimers: { real: noTimer, virtual: noTimer, prof: noTimer },
    posixTimers: [],
    limits: [],
    oomScoreAdj: 0,
    childSubreaper: false,
    loginuid: leader.loginuid ?? NO_LOGINUID,
    membarrierRegistrations: 0,
    findings,
  };
}

/** loginuid of a process that nobody logged in for. */
const NO_LOGINUID = 0xffff_ffff;

function identity(kernel: Kernel, group: TaskGroup): Pick<Process, 'pid' | 'ppid' | 'pgid' | 'sid' | 'comm'> {
  return {
    pid: group.pid,
    ppid: parentPid(kernel, group),
    pgid: numberOfRole(kernel, group, 'PIDTYPE_PGID'),
    sid: numberOfRole(kernel, group, 'PIDTYPE_SID'),
    comm: group.leader.comm,
  };
}

/**
 * As much of {@link Process} as says with whom a process belongs together that cannot be captured: numbers
 * that cannot be read either are none that another process has.
 */
export function knownIdentity(
  kernel: Kernel,
  group: TaskGroup,
): Pick<Process, 'pid' | 'ppid' | 'pgid' | 'sid' | 'comm'> {
  const { pid, leader, foundBy = 0 } = group;
  return {
    pid,
    ppid: readable(() => parentPid(kernel, group)) ?? foundBy,
    pgid: readable(() => numberOfRole(kernel, group, 'PIDTYPE_PGID')) ?? -pid,
    sid: readable(() => numberOfRole(kernel, group, 'PIDTYPE_SID')) ?? -pid,
    comm: readable(() => leader.comm) ?? '',
  };
}

function membarriers(kernel: Kernel, leader: Task): number {
  return membarrierRegistrations(kernel.bind(mmStruct).at(leader.mm).membarrier_state ?? 0);
}

/**
 * Captures one process. What cannot be kept goes to `findings.reasons`; throws a VmcoreError if a structure
 * cannot be read at all.
 */
export function captureProcess(source: ProcessSource, group: TaskGroup, findings: Findings): Process {
  const { kernel, files } = source;
  const { leader, signal, threads } = group;
  const ending = source.endings.of(group);
  checkTree(kernel, group, ending !== undefined, findings);
  if (group.problem !== undefined) findings.reasons.push(group.problem);
  if (ending !== undefined) {
    findings.notes.push(ending.note);
    return zombie(kernel, group, ending.exitCode, findings);
  }
  if (threads.length === 0) return zombie(kernel, group, exitCodeOf(group), findings);
  if (leader.mm === 0n) {
    throw new FileRefusal('had a first thread that was ending, and others that were not', 'passing');
  }
  checkNamespaces(source, group, findings);
  const forProcedure = source.forProcedure.has(group.pid);
  const own = threads.filter((thread) => !isRingWorker(thread));
  const [kept, gone] = forProcedure ? [threads.slice(0, 1), threads.slice(1)] : [own, []];
  checkThreadsShare(group, kept, findings);
  if (isTtyAudited(signal)) findings.reasons.push('has its terminal input audited (pam_tty_audit)');
  findings.reasons.push(...(files.refusals.get(group.pid) ?? []));
  for (const { reason, moment } of files.refusalsForNow.get(group.pid) ?? [])
    ofTheMoment(findings, moment, () => findings.reasons.push(reason));
  findings.repairs.push(...clockRepairs(source.clocks));
  findings.notes.push(...processNotes(kernel, leader, signal));
  const sigactions = readSigactions(kernel, leader.sighand);
  const fs = kernel.bind(fsStruct).at(leader.fs);
  if (fs.users > threads.length)
    findings.reasons.push('shares its working directory and umask with another process (CLONE_FS)');
  const timers = capturePosixTimers(kernel, signal, threads, source.clocks);
  if (forProcedure) timers.timers = withoutTimersOf(gone, timers.timers, findings);
  const intervalTimers = captureIntervalTimers(kernel, signal, threads, source.clocks);
  const kinds = { intervalTimers, posixTimers: timers.timers };
  findings.reasons.push(...timers.problems, ...timerProblems(source.clocks, threads, kinds));
  findings.notes.push(...timers.notes);
  const pending = capturePending(kernel, signal.sharedPendingList, signal.sharedPendingSignal);
  if (pending.killed) refuseForNow(findings, 'was being killed', 'passing');
  const memory = captureMemory(source, group, kept, findings);
  ofTheMoment(findings, kernel.isAlive ? 'passing' : undefined, () =>
    findings.reasons.push(
      ...files.ringProblems(group.pid, memory.vmas, waitsForFiles(kernel, own, source.running)),
    ),
  );
  const user = new UserMemory(kernel, kernel.bind(mmStruct).at(leader.mm));
  const patches: MemoryPatch[] = [];
  const sharedPending = signal.sharedPendingSignal;
  const notice = source.endings.noticeTo(group);
  const owner: ThreadOwner = {
    ...{ findings, sigactions, sharedPending, patches },
    noticeTo: notice?.thread,
    vmas: memory.vmas,
    user,
    stopping: pending.stopped,
    forProcedure,
  };
  for (const task of gone) loseThread(source, task, owner);
  const captured = kept.map((task) => captureThread(source, task, owner));
  for (const reason of source.vforks.execProblems(group, captured)) refuseForNow(findings, reason, 'passing');
  const cwdFileId = files.directory(fs.pwd, group.pid);
  const rootFileId = files.directory(fs.root, group.pid);
  // Mappings and directories have repairs and notes as well: these are all only now.
  findings.repairs.push(...(files.repairs.get(group.pid) ?? []));
  findings.notes.push(...(files.notes.get(group.pid) ?? []));
  findings.losses.push(...(files.losses.get(group.pid) ?? []));
  findings.unexpected.push(...(files.unexpected.get(group.pid) ?? []));
  return {
    ...identity(kernel, group),
    ...stopOf(group, owner.stopping),
    exitCode: 0,
    threads: captured,
    // They are for system calls that go on.
    memory: forProcedure ? memory : applyPatches(memory, user, patches),
    filesId: source.ids.of(leader.files),
    fsId: source.ids.of(leader.fs),
    sighandId: source.ids.of(leader.sighand),
    cwdFileId,
    rootFileId,
    umask: fs.umask,
    personality: leader.personality,
    sigactions,
    sharedPendingSignals: notice === undefined ? pending.signals : [...pending.signals, notice.siginfo],
    intervalTimers,
    posixTimers: timers.timers,
    limits: readLimits(kernel, signal),
    oomScoreAdj: signal.oom_score_adj,
    childSubreaper: signal.is_child_subreaper,
    loginuid: leader.loginuid ?? NO_LOGINUID,
    membarrierRegistrations: membarriers(kernel, leader),
    findings,
  };
}
