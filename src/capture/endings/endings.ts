import { constants } from 'node:os';
import { readCred } from '../../linux/cred.ts';
import type { RunningTasks } from '../../linux/readers/running-tasks.ts';
import { taskAt } from '../../linux/sched.ts';
import { readSigactions } from '../../linux/signal.ts';
import { NANOSECONDS_PER_TICK, SIGINFO_BYTES } from '../../system/abi.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { EndedTasks } from '../file-capture.ts';
import type { TaskGroup } from '../tasks.ts';
import { exitOf } from './ending.ts';
import { type EndSource, obstaclesOf } from './ending-obstacles.ts';

const { SIGCHLD } = constants.signals;
/** Handlers (include/uapi/asm-generic/signal-defs.h). */
const SIG_DFL = 0n;
const SIG_IGN = 1n;
/** A flag of sigaction(2) (include/uapi/asm-generic/signal-defs.h). */
const SA_NOCLDWAIT = 2n;
/** `si_code` of SIGCHLD (include/uapi/asm-generic/siginfo.h). */
const CLD = { exited: 1, killed: 2, dumped: 3 } as const;

/** A process that was ending at the panic, as it is a moment later. */
export interface Ending {
  /** As in wait(2). */
  readonly exitCode: number;
  /** Whether it waits for its parent as a zombie; if not, it is gone. */
  readonly isZombie: boolean;
  /** For the report. */
  readonly note: string;
}

/** `exit code 1`, `signal 9`. */
function showExit(exitCode: number): string {
  const signal = exitCode & 0x7f;
  return signal === 0 ? `exit code ${exitCode >> 8}` : `signal ${signal}`;
}

/** siginfo_t of the SIGCHLD that says that a process has ended: do_notify_parent() (kernel/signal.c). */
function siginfoOf(kernel: Kernel, group: TaskGroup, groupCode: number): Uint8Array {
  const { leader, signal, threads, allThreads } = group;
  // A leader that has ended before the others has a code of its own.
  const isLast = threads.some(({ address }) => address === leader.address);
  const exitCode = isLast ? groupCode : leader.exit_code;
  const killedBy = exitCode & 0x7f;
  const code = (exitCode & 0x80) !== 0 ? CLD.dumped : killedBy !== 0 ? CLD.killed : CLD.exited;
  const times = (of: 'utime' | 'stime') => allThreads.reduce((sum, task) => sum + task[of], signal[of]);
  const info = Buffer.alloc(SIGINFO_BYTES);
  info.writeInt32LE(SIGCHLD, 0);
  info.writeInt32LE(code, 8);
  info.writeInt32LE(group.pid, 16);
  info.writeUInt32LE(readCred(kernel, leader.real_cred).uid, 20);
  info.writeInt32LE(code === CLD.exited ? exitCode >> 8 : killedBy, 24);
  info.writeBigInt64LE(times('utime') / NANOSECONDS_PER_TICK, 32);
  info.writeBigInt64LE(times('stime') / NANOSECONDS_PER_TICK, 40);
  return info;
}

/** What a process does about children that end. */
interface Parent {
  /** It does not want to wait for them: they leave no zombie. */
  readonly reaps: boolean;
  /** It gets a signal. */
  readonly isTold: boolean;
}

/** SIGCHLD for a child that has ended. */
interface Notice {
  /** A siginfo_t. */
  readonly siginfo: Uint8Array;
  /** The thread that it wakes (complete_signal, kernel/signal.c); undefined if all have it blocked. */
  readonly thread: bigint | undefined;
}

/** The one whose child it is, if it does not block the signal; else another one that does not. */
function threadToTell({ threads }: TaskGroup, preferred: bigint): bigint | undefined {
  const open = threads.filter(({ blocked }) => (blocked & (1n << BigInt(SIGCHLD - 1))) === 0n);
  return (open.find(({ address }) => address === preferred) ?? open[0])?.address;
}

/** `thread` is the one whose child it is: its mask decides whether the signal is kept (sig_ignored). */
function parentOf(kernel: Kernel, thread: bigint, { leader, signal }: TaskGroup): Parent {
  const action = readSigactions(kernel, leader.sighand)[SIGCHLD - 1];
  const { handler = SIG_DFL, flags = 0n } = action ?? {};
  const bit = 1n << BigInt(SIGCHLD - 1);
  const { blocked, real_blocked } = taskAt(kernel, thread);
  const isBlocked = ((blocked | real_blocked) & bit) !== 0n;
  const isPending = (signal.sharedPendingSignal & bit) !== 0n;
  return {
    reaps: handler === SIG_IGN || (flags & SA_NOCLDWAIT) !== 0n,
    isTold: handler !== SIG_IGN && (handler !== SIG_DFL || isBlocked) && !isPending,
  };
}

/**
 * The processes that were ending when the kernel died, and would have ended a moment later: all that they had
 * is given up, and their parents are told.
 */
export class Endings {
  readonly #kernel: Kernel;
  readonly #ended = new Map<number, Ending>();
  readonly #problems = new Map<number, readonly string[]>();
  /** By the pid of the parent. */
  readonly #notices = new Map<number, Notice>();
  readonly #tasks = { leaders: new Set<bigint>(), threads: new Set<bigint>(), spaces: new Set<bigint>() };

  /** @param groups all processes that are to come back */
  constructor(source: EndSource, groups: readonly TaskGroup[], running: RunningTasks) {
    this.#kernel = source.kernel;
    const byTask = new Map(
      groups.flatMap((group) => group.allThreads.map(({ address }) => [address, group] as const)),
    );
    for (const group of groups) {
      try {
        this.#add(source, group, running, byTask);
      } catch (error) {
        if (!(error instanceof VmcoreError)) throw error;
        this.#problems.set(group.pid, [`whether it was ending cannot be told: ${error.message}`]);
      }
    }
  }

  #add(
    source: EndSource,
    group: TaskGroup,
    running: RunningTasks,
    byTask: ReadonlyMap<bigint, TaskGroup>,
  ): void {
    const exit = exitOf(this.#kernel, group, running);
    if (exit === undefined) return;
    const { was, exitCode } = exit;
    const problems = obstacles(source, group);
    if (exitCode === undefined || problems.length > 0) {
      const all = exitCode === undefined ? ['nothing tells how', ...problems] : problems;
      this.#problems.set(
        group.pid,
        all.map((problem) => `${was}, and ${problem}`),
      );
      return;
    }
    const isZombie = this.#tellParent(group, exitCode, byTask.get(group.leader.real_parent));
    const begin = was === 'was being killed' ? 'was being killed' : 'was ending';
    const gone = isZombie ? '' : '; nobody waits for it';
    const note = `${begin}, and has ended: ${showExit(exitCode)}${gone}`;
    this.#ended.set(group.pid, { exitCode, isZombie, note });
    const { leaders, threads, spaces } = this.#tasks;
    leaders.add(group.leader.address);
    for (const { address, mm } of group.allThreads) {
      threads.add(address);
      if (mm !== 0n) spaces.add(mm);
    }
  }

  /** @returns whether the parent will wait for it */
  #tellParent(group: TaskGroup, exitCode: number, parent: TaskGroup | undefined): boolean {
    if (parent === undefined || parent.threads.length === 0) return false;
    const { reaps, isTold } = parentOf(this.#kernel, group.leader.real_parent, parent);
    // SIGCHLD is queued once (legacy_queue).
    if (isTold && !this.#notices.has(parent.pid))
      this.#notices.set(parent.pid, {
        siginfo: siginfoOf(this.#kernel, group, exitCode),
        thread: threadToTell(parent, group.leader.real_parent),
      });
    return !reaps;
  }

  /** What they had, and have no more. */
  get tasks(): EndedTasks {
    return this.#tasks;
  }

  /** How a process has ended; undefined for all others. */
  of({ pid }: Pick<TaskGroup, 'pid'>): Ending | undefined {
    return this.#ended.get(pid);
  }

  /** Why a process that was ending can come back neither as one that lives nor as one that has ended. */
  problemsOf({ pid }: Pick<TaskGroup, 'pid'>): readonly string[] {
    return this.#problems.get(pid) ?? [];
  }

  /** The SIGCHLD that a process has got because a child has ended. */
  noticeTo({ pid }: Pick<TaskGroup, 'pid'>): Notice | undefined {
    return this.#notices.get(pid);
  }
}

function obstacles(source: EndSource, group: TaskGroup): string[] {
  try {
    return obstaclesOf(source, group);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return [`what that does to others cannot be read: ${error.message}`];
  }
}
