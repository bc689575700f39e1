import { registersAtEnd } from '../capture/arch/index.ts';
import { knownIdentity } from '../capture/process.ts';
import type { TaskGroup } from '../capture/tasks.ts';
import { mmOf, requireTask, stateLetter } from '../inspect/tasks.ts';
import { REGISTERS_OF_THE_TASK, savedRegisters, savedVectorState } from '../linux/arch/index.ts';
import { readCred } from '../linux/cred.ts';
import { cpuNoteOf } from '../linux/current.ts';
import { savedAuxv } from '../linux/mm.ts';
import type { Mm } from '../linux/mm-types.ts';
import { forEachThread } from '../linux/pid.ts';
import { readArguments } from '../linux/readers/arguments.ts';
import { type RunningTasks, runningTasks } from '../linux/readers/running-tasks.ts';
import { UserMemory } from '../linux/readers/user-memory.ts';
import { hasThreadFlag, niceOf, PF, type Task, TIF, taskAt } from '../linux/sched.ts';
import { signalStruct } from '../linux/signal.ts';
import { isDamage, readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { CoreProcess, CoreThread } from './notes.ts';

/** There is nothing of this process that a core could have; the message says why. */
export class NoCoreError extends Error {
  override readonly name = 'NoCoreError';
}

/** A process for its core, and what of it is not what it was. */
export interface FoundProcess {
  readonly process: CoreProcess;
  readonly mm: Mm;
  /** What is missing: sentences. */
  readonly missing: readonly string[];
  /** What is there and may be older than the panic. */
  readonly notes: readonly string[];
}

/** What of the arguments fits into the core's note. */
const MOST_ARGUMENT_BYTES = 80;
const NO_CREDENTIALS = { uid: 0, gid: 0 };

/**
 * Registers of a thread that was on a CPU: in user mode the CPU's own, if the dump has them. A kernel that
 * panicked has saved the same on the thread's stack; a guest that was dumped while it ran has not. On its way
 * into or out of the kernel, those are its registers that it would have come to.
 */
function registersOf(
  kernel: Kernel,
  task: Task,
  cpu: number | undefined,
  notes: string[],
): Record<string, bigint> {
  const saved = savedRegisters(kernel, task);
  const note = cpu === undefined ? undefined : cpuNoteOf(kernel, cpu, task.pid);
  if (cpu === undefined || note === undefined) return saved;
  if (!kernel.architecture.notes.isUserMode(note.registers)) {
    const atEnd = readable(() => registersAtEnd(kernel, cpu, task));
    if (atEnd?.kind === 'lost') notes.push(`thread ${task.pid} ${atEnd.why}: they are of an earlier moment`);
    return atEnd?.kind === 'user' ? { ...saved, ...atEnd.registers } : saved;
  }
  return {
    ...note.registers,
    ...Object.fromEntries(REGISTERS_OF_THE_TASK.map((name) => [name, saved[name] ?? 0n])),
  };
}

/** What of a process was found on the way, in sentences. */
interface Remarks {
  readonly missing: string[];
  readonly notes: string[];
}

/** One thread; undefined, with a sentence, if its registers cannot be read. */
function threadOf(
  kernel: Kernel,
  task: Task,
  running: RunningTasks | undefined,
  { missing, notes }: Remarks,
): CoreThread | undefined {
  const cpu = running?.cpuOf.get(task.address);
  if (cpu !== undefined || task.on_cpu !== 0) {
    notes.push(
      `thread ${task.pid} was on a CPU: its vector registers are those of when it last left one, as far as it has used them since`,
    );
  }
  try {
    const registers = registersOf(kernel, task, cpu, notes);
    let vector: CoreThread['vector'];
    try {
      vector = savedVectorState(kernel, task);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      missing.push(`the vector registers of thread ${task.pid} are missing: ${error.message}`);
    }
    return {
      tid: task.pid,
      comm: task.comm,
      registers,
      vector,
      pendingSignals: task.pendingSignal,
      blockedSignals: task.blocked,
      userNanoseconds: task.utime,
      systemNanoseconds: task.stime,
    };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    missing.push(`thread ${task.pid} is missing: ${error.message}`);
    return undefined;
  }
}

/** The tasks of a process, as far as their list can be read. */
function tasksOf(kernel: Kernel, leader: Task, missing: string[]): Task[] {
  const tasks: Task[] = [];
  try {
    for (const address of forEachThread(kernel, leader.address)) tasks.push(taskAt(kernel, address));
    const { nr_threads: counted } = kernel.bind(signalStruct).at(leader.signal);
    if (counted !== tasks.length) {
      missing.push(`threads are missing: the kernel counted ${counted}, ${tasks.length} were found`);
    }
  } catch (error) {
    if (!isDamage(error)) throw error;
    missing.push(`threads are missing: ${error.message}`);
  }
  return tasks.some(({ address }) => address === leader.address) ? tasks : [leader, ...tasks];
}

/** Live threads of a program: not what the kernel runs on its behalf (io_uring, vhost). */
function ofTheProgram(tasks: readonly Task[]): Task[] {
  return tasks.filter(
    ({ mm, exit_state, flags }) =>
      mm !== 0n && exit_state === 0 && (flags & (PF.ioWorker | PF.userWorker)) === 0,
  );
}

/** The one asked for first, then the leader, then by number. */
function inOrder(tasks: readonly Task[], first: number): Task[] {
  const rank = ({ pid, tgid }: Task): number => (pid === first ? 0 : pid === tgid ? 1 : 2);
  return tasks.toSorted((a, b) => rank(a) - rank(b) || a.pid - b.pid);
}

/** Throws a NoCoreError for what has no memory, or none that such a core can have. */
function requireMemory(pid: number, leader: Task, threads: readonly Task[]): void {
  const whose = `process ${pid} (${leader.comm})`;
  if ((leader.flags & PF.kthread) !== 0) {
    throw new NoCoreError(`${whose} is a kernel thread: it has no memory of its own that a core could have`);
  }
  if (threads.length === 0) {
    throw new NoCoreError(`${whose} has ended (a zombie): its memory and its registers are gone`);
  }
  if (threads.some((task) => hasThreadFlag(task, TIF.addr32))) {
    throw new NoCoreError(`${whose} is a 32-bit program: cores are made of 64-bit programs only`);
  }
}

/**
 * Reads a process for its core.
 * @param pid of a process, or of one of its threads, which is then the core's first
 * @throws NoCoreError if there is nothing that a core could have (a kernel thread, a zombie), or no thread
 * can be read; a VmcoreError if there is no such process, or it cannot be read at all
 */
export function findForCore(kernel: Kernel, pid: number): FoundProcess {
  const asked = requireTask(kernel, pid);
  const leader = taskAt(kernel, asked.group_leader);
  const remarks: Remarks = { missing: [], notes: [] };
  const allThreads = (asked.flags & PF.kthread) !== 0 ? [asked] : tasksOf(kernel, leader, remarks.missing);
  const tasks = inOrder(ofTheProgram(allThreads), pid);
  requireMemory(leader.tgid, leader, tasks);
  const running = readable(() => runningTasks(kernel));
  const threads = tasks.flatMap((task) => threadOf(kernel, task, running, remarks) ?? []);
  const [first] = tasks;
  if (first === undefined || threads.length === 0) {
    throw new NoCoreError(`process ${leader.tgid} (${leader.comm}): ${remarks.missing.join('; ')}`);
  }
  const mm = mmOf(kernel, first);
  const signal = kernel.bind(signalStruct).at(leader.signal);
  const group: TaskGroup = { pid: leader.tgid, leader, signal, threads: tasks, allThreads };
  return { process: { ...processOf(kernel, group, mm), threads }, mm, ...remarks };
}

function processOf(kernel: Kernel, group: TaskGroup, mm: Mm): Omit<CoreProcess, 'threads'> {
  const { leader } = group;
  const { pid, ppid, pgid, sid, comm } = knownIdentity(kernel, group);
  const { uid, gid } = readable(() => readCred(kernel, leader.real_cred)) ?? NO_CREDENTIALS;
  return {
    ...{ pid, ppid, comm, uid, gid },
    pgid: Math.max(0, pgid),
    sid: Math.max(0, sid),
    state: stateLetter(leader),
    nice: niceOf(leader),
    flags: leader.flags,
    arguments: readArguments(new UserMemory(kernel, mm), mm, MOST_ARGUMENT_BYTES) ?? new Uint8Array(),
    auxv: savedAuxv(kernel, mm),
  };
}
