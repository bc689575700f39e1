import type { AddressSpace } from './memory.ts';
import type { Findings } from './verdict.ts';

/** General registers of a thread in user mode, in the order and under the names of `struct user_regs_struct`. */
export interface UserRegisters {
  readonly r15: bigint;
  readonly r14: bigint;
  readonly r13: bigint;
  readonly r12: bigint;
  readonly bp: bigint;
  readonly bx: bigint;
  readonly r11: bigint;
  readonly r10: bigint;
  readonly r9: bigint;
  readonly r8: bigint;
  readonly ax: bigint;
  readonly cx: bigint;
  readonly dx: bigint;
  readonly si: bigint;
  readonly di: bigint;
  readonly origAx: bigint;
  readonly ip: bigint;
  readonly cs: bigint;
  readonly flags: bigint;
  readonly sp: bigint;
  readonly ss: bigint;
  readonly fsBase: bigint;
  readonly gsBase: bigint;
  readonly ds: bigint;
  readonly es: bigint;
  readonly fs: bigint;
  readonly gs: bigint;
}

/** One component of the extended state, as it lies in memory. Numbers as in the SDM: 2 AVX, 5 to 7 AVX-512, 9 PKRU. */
export interface XstateComponent {
  readonly number: number;
  readonly data: Uint8Array;
}

/** Floating-point and vector state of a thread. */
export interface FpuState {
  /** The 512 bytes of the legacy FXSAVE region. */
  readonly fxsave: Uint8Array;
  /** XSTATE_BV, or undefined on a machine without XSAVE. */
  readonly xstateBv: bigint | undefined;
  /** Components above the legacy region that are in use (not in their initial configuration). */
  readonly components: readonly XstateComponent[];
}

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

/** Slot of set_thread_area (struct user_desc); 64-bit programs leave the three slots empty. */
export interface TlsSlot {
  readonly entryNumber: number;
  readonly low: number;
  readonly high: number;
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

/** How a thread goes on; see src/capture/syscall.ts for the reasons. */
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

/** A process as it was when its kernel died; enough to rebuild it, as long as old memory is there for its pages. */
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
}
