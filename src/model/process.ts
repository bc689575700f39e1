import type { FpuState, TlsSlot, UserRegisters } from '../arch/index.ts';
import type { AddressSpace } from './memory.ts';
import type { Findings } from './verdict.ts';

export type { FpuState, TlsSlot, UserRegisters, XstateComponent } from '../arch/index.ts';

export interface SigAltStack {
  readonly sp: bigint;
  readonly sizeBytes: bigint;
  readonly flags: number;
}

export interface Rseq {
  readonly pointer: bigint;
  readonly sizeBytes: number;
  readonly signature: number;
  /** The critical section that the thread was in, 0 if none. */
  readonly criticalSection: bigint;
}

export interface Credentials {
  readonly uid: number;
  readonly gid: number;
  readonly euid: number;
  readonly egid: number;
  readonly suid: number;
  readonly sgid: number;
  readonly fsuid: number;
  readonly fsgid: number;
  readonly groups: readonly number[];
  readonly capInheritable: bigint;
  readonly capPermitted: bigint;
  readonly capEffective: bigint;
  readonly capBounding: bigint;
  readonly capAmbient: bigint;
  readonly securebits: number;
  readonly noNewPrivs: boolean;
}

/** A filter of seccomp(2), which holds together with all that were there before it. */
export interface SeccompFilter {
  /** Instructions of eight bytes (struct sock_filter). */
  readonly program: Uint8Array;
  /** What it does to a call is logged (SECCOMP_FILTER_FLAG_LOG). */
  readonly isLogged: boolean;
  readonly previous: SeccompFilter | undefined;
}

export interface Thread {
  readonly tid: number;
  readonly comm: string;
  readonly registers: UserRegisters;
  readonly fpu: FpuState;
  readonly tls: readonly TlsSlot[];
  /** User address of set_tid_address, 0 if none. */
  readonly clearChildTid: bigint;
  readonly robustList: { readonly head: bigint; readonly sizeBytes: number };
  readonly rseq: Rseq | undefined;
  readonly blockedSignals: bigint;
  /** siginfo_t of 128 bytes each, in the order of the queue. */
  readonly pendingSignals: readonly Uint8Array[];
  readonly altStack: SigAltStack;
  readonly parentDeathSignal: number;
  readonly credentials: Credentials;
  /** The newest of its filters; the same object for threads that have it in common. */
  readonly seccomp?: SeccompFilter | undefined;
  /** SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5. */
  readonly policy: number;
  readonly nice: number;
  readonly rtPriority: number;
  /** CPUs that the thread may use; undefined: all. */
  readonly cpus?: readonly number[];
  /** ioprio_set(2): class and level; undefined: none of its own. */
  readonly ioPriority?: number;
  /** PR_SET_TIMERSLACK; undefined: the default of its process. */
  readonly timerSlackNanoseconds?: number;
  /** What becomes of the system call that the thread was in; for the report and the crash procedure. */
  readonly syscall: SyscallOutcomeRecord;
}

/** How a thread goes on; see src/capture/calls/syscall.ts for the reasons. */
export interface SyscallOutcomeRecord {
  readonly outcome: 'resume' | 'result' | 'restart' | 'eintr' | 'in-doubt';
  readonly syscall: string | undefined;
  readonly reason: string;
}

export interface Sigaction {
  readonly handler: bigint;
  readonly flags: bigint;
  readonly restorer: bigint;
  readonly mask: bigint;
}

/** Times in microseconds; `remaining` 0 means not armed. */
export interface IntervalTimer {
  readonly intervalMicroseconds: number;
  readonly remainingMicroseconds: number;
}

export interface PosixTimer {
  readonly id: number;
  readonly clock: number;
  readonly notify: number;
  readonly signal: number;
  readonly value: bigint;
  readonly notifyThread: number | undefined;
  readonly overrun: number;
  readonly intervalNanoseconds: bigint;
  readonly remainingNanoseconds: bigint;
}

export interface ResourceLimit {
  readonly soft: bigint;
  readonly hard: bigint;
}

/**
 * A process as it was when its kernel died; enough to rebuild it, as long as old memory is there for its
 * pages.
 */
export interface Process {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly comm: string;
  readonly state: 'alive' | 'stopped' | 'zombie';
  /** As in wait(2). */
  readonly exitCode: number;
  /** The signal that stopped the process; 0 unless it is stopped. */
  readonly stopSignal: number;
  /** Of a stopped process, what its parent has been told: nothing yet, by SIGCHLD, or by wait(2) as well. */
  readonly stopNotice?: 'unsent' | 'sent' | 'taken';
  /** Empty for a zombie; otherwise the first is the thread-group leader. */
  readonly threads: readonly Thread[];
  readonly memory: AddressSpace | undefined;
  /** Ids that are equal for processes that share the kernel object (CLONE_FILES, CLONE_FS, CLONE_SIGHAND). */
  readonly filesId: number;
  readonly fsId: number;
  readonly sighandId: number;
  /** File ids of working and root directory, in the group's files. */
  readonly cwdFileId: number;
  readonly rootFileId: number;
  readonly umask: number;
  readonly personality: number;
  /** Index 0 is signal 1; 64 of them. */
  readonly sigactions: readonly Sigaction[];
  readonly sharedPendingSignals: readonly Uint8Array[];
  readonly intervalTimers: {
    readonly real: IntervalTimer;
    readonly virtual: IntervalTimer;
    readonly prof: IntervalTimer;
  };
  readonly posixTimers: readonly PosixTimer[];
  readonly limits: readonly ResourceLimit[];
  readonly oomScoreAdj: number;
  readonly childSubreaper: boolean;
  readonly loginuid: number;
  readonly membarrierRegistrations: number;
  readonly findings: Findings;
  /** Set if it comes back for its crash procedure alone. */
  readonly procedureAlone?: ProcedureAlone;
}

/** What keeps a process that comes back for its crash procedure alone from going on. */
export interface ProcedureAlone {
  /**
   * User address of the system call instruction of its restorer. What a procedure goes on with is this call,
   * which ends the process.
   */
  readonly systemCall: number;
  /** Why it would be refused if it had no procedure: what whoever is to mend it has to know. */
  readonly refusedFor: readonly string[];
  /** It starts in its procedure, and has its end to go on with: it may have images. */
  readonly isReady: boolean;
}
