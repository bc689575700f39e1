import { constants } from 'node:os';
import type { Progress } from './call-progress.ts';
import type { KnownResult } from './call-witness.ts';
import { syscallRow } from './syscall-table.ts';

const { errno } = constants;

/** What the task did when the kernel died. */
export type Activity =
  /** In user mode, or in the kernel because of an interrupt, on a CPU or not. */
  | 'user'
  /** TASK_INTERRUPTIBLE: a signal would have woken it. */
  | 'asleep'
  /** TASK_UNINTERRUPTIBLE: waiting for a disk, a lock or memory. */
  | 'blocked'
  /** In the kernel, not asleep: on a CPU, or waiting for one. */
  | 'running';

/** How far a transfer came, and through what. */
export interface Transfer {
  readonly through: 'regular' | 'pipe' | 'tcp-socket' | 'stream-socket' | 'message-socket' | 'tty' | 'other';
  readonly direction: 'read' | 'write';
  readonly append: boolean;
  readonly requestedBytes: number;
  /** Bytes that were moved already; undefined where that could not be found out. */
  readonly doneBytes: number | undefined;
  /**
   * A read that goes on waiting when it has got something: recv with MSG_WAITALL or SO_RCVLOWAT, a terminal
   * in raw mode with VMIN above 1. What a terminal gave is in a buffer of the kernel meanwhile
   * (iterate_tty_read), not counted in `doneBytes`.
   */
  readonly waitsForMore: boolean;
}

/** A thread's system call at the panic. */
export interface SyscallState {
  /** Name of the call; undefined: in none. */
  readonly call: string | undefined;
  /** `pt_regs.ax`: -ENOSYS until there is a result. */
  readonly ax: bigint;
  readonly activity: Activity;
  /** How far the thread's kernel stack says that it has come. */
  readonly progress: Progress;
  /** A result that the kernel's structures show. */
  readonly known: KnownResult | undefined;
  /** The task whose system call killed the kernel. */
  readonly panicked: boolean;
  /** A signal handler without SA_RESTART will run first. */
  readonly interruptedByHandler: boolean;
  /** Any signal handler will run first. */
  readonly handlerPending: boolean;
  /**
   * The thread gets a signal that the dead kernel had not sent yet, and has a handler for it; whether that
   * one restarts calls (SA_RESTART).
   */
  readonly wokenBy: { readonly restarts: boolean } | undefined;
  /**
   * What a futex call does: waiting and waking may both be repeated, locks tell in their word who has them.
   */
  readonly futex: 'wait' | 'wake' | 'lock' | 'unlock' | 'wait-requeue' | 'other' | undefined;
  /** The futex word names this thread as the owner; undefined where it is no lock or cannot be read. */
  readonly ownsFutex: boolean | undefined;
  readonly transfer: Transfer | undefined;
  /** The descriptor that is the first argument is open. */
  readonly isOpen: boolean;
  /** No other thread has this table of descriptors. */
  readonly isOnlyUser: boolean;
  /** The socket that the call is made on has a time limit (SO_RCVTIMEO, SO_SNDTIMEO) for it. */
  readonly hasSocketTimeout: boolean;
  /** execve(2) has replaced nothing yet. */
  readonly isBeforeExec: boolean;
  /** Why this call must not be made twice, though others of its name may be. */
  readonly notTwice: string | undefined;
  /**
   * Nanoseconds that were left of a time that counts from the beginning of the call; undefined for a call
   * without such a time.
   */
  readonly timeLeft: bigint | 'unknown' | undefined;
}

/** What becomes of the call. */
export type SyscallDecision =
  | { readonly outcome: 'resume'; readonly reason: string }
  | { readonly outcome: 'result'; readonly value: bigint; readonly reason: string }
  | { readonly outcome: 'restart'; readonly reason: string }
  | { readonly outcome: 'eintr'; readonly reason: string }
  | { readonly outcome: 'in-doubt'; readonly reason: string }
  | { readonly outcome: 'refuse'; readonly reason: string };

const EINTR = BigInt(errno.EINTR);
/** `ax` of a call that has no result yet. */
export const ENOSYS = BigInt(-errno.ENOSYS);
/** include/linux/errno.h: codes that the kernel never shows to user space. */
const ERESTARTSYS = -512n;
const ERESTARTNOINTR = -513n;
const ERESTARTNOHAND = -514n;
/** The call goes on where `task_struct.restart_block` says. */
export const ERESTART_RESTARTBLOCK = -516n;
/** Writes of at most this many bytes to a pipe happen at once or not at all (pipe(7)). */
const PIPE_BUF = 4096;

/** The value of `ax` for a call that was interrupted. */
export const EINTR_RESULT = -EINTR;

/** The rule of arch_do_signal_or_restart() (arch/x86/kernel/signal.c) for a call that has ended. */
function finished(state: SyscallState, ax: bigint): SyscallDecision {
  const eintr: SyscallDecision = {
    outcome: 'eintr',
    reason: 'a signal handler runs first and does not restart calls',
  };
  switch (ax) {
    case ERESTARTNOINTR:
      return { outcome: 'restart', reason: 'the kernel was about to restart it' };
    case ERESTARTSYS:
      return state.interruptedByHandler
        ? eintr
        : { outcome: 'restart', reason: 'the kernel was about to restart it' };
    case ERESTARTNOHAND:
    case ERESTART_RESTARTBLOCK:
      return state.handlerPending
        ? eintr
        : { outcome: 'restart', reason: 'the kernel was about to restart it' };
    default:
      return { outcome: 'result', value: ax, reason: 'it had its result' };
  }
}

/** A file's position moves at the end of the call: the call has to be certainly before that. */
function fileDecision(transfer: Transfer, isKept: boolean): SyscallDecision {
  const { direction, doneBytes } = transfer;
  if (direction === 'write' && transfer.append) {
    return doneBytes === 0 && isKept
      ? { outcome: 'restart', reason: 'it appends to a file, and not a byte was moved' }
      : { outcome: 'in-doubt', reason: 'it appends to a file, and may have done so' };
  }
  return isKept
    ? { outcome: 'restart', reason: 'it reads or writes a file at the same position again' }
    : { outcome: 'in-doubt', reason: 'it may have moved the position of the file' };
}

function transferDecision(transfer: Transfer, { activity, progress }: SyscallState): SyscallDecision {
  const { direction, doneBytes, through } = transfer;
  if (through === 'regular')
    return fileDecision(transfer, activity === 'asleep' || progress.kind === 'position-kept');
  if (through === 'tty') return terminalDecision(transfer, activity);
  const movesByPieces = through === 'pipe' || through === 'tcp-socket' || through === 'stream-socket';
  if (movesByPieces && doneBytes === 0) return { outcome: 'restart', reason: 'not a byte was moved' };
  // A stream of AF_UNIX counts a piece before the socket has it, or is rid of it: not so while it waits. TCP
  // does both under the lock of the socket.
  const isAhead =
    (through === 'stream-socket' && activity !== 'asleep') ||
    (through === 'tcp-socket' && direction === 'write' && activity === 'blocked');
  if (movesByPieces && doneBytes !== undefined && !isAhead) {
    return { outcome: 'result', value: BigInt(doneBytes), reason: `${doneBytes} bytes were moved` };
  }
  if (activity === 'asleep') {
    if (direction === 'read' && !transfer.waitsForMore) {
      return { outcome: 'restart', reason: 'it takes nothing while it waits' };
    }
    if (direction === 'write' && !movesByPieces) {
      return { outcome: 'restart', reason: 'it sends a message at once or not at all' };
    }
    if (through === 'pipe' && direction === 'write' && transfer.requestedBytes <= PIPE_BUF) {
      return { outcome: 'restart', reason: 'so few bytes go into a pipe at once or not at all' };
    }
  }
  return { outcome: 'in-doubt', reason: 'some of the bytes may have been moved' };
}

function terminalDecision({ direction, waitsForMore }: Transfer, activity: Activity): SyscallDecision {
  if (direction === 'write') {
    return { outcome: 'in-doubt', reason: 'it writes to a terminal, and some of it may be on the screen' };
  }
  return activity === 'asleep' && !waitsForMore
    ? { outcome: 'restart', reason: 'it takes nothing while it waits' }
    : { outcome: 'in-doubt', reason: 'it may have taken input from the terminal' };
}

function futexDecision(state: SyscallState): SyscallDecision {
  switch (state.futex) {
    case 'wait':
      return state.activity === 'asleep'
        ? { outcome: 'restart', reason: 'it compares the futex word again' }
        : { outcome: 'result', value: 0n, reason: 'a futex wait may end for no reason at any time' };
    case 'wake':
      return { outcome: 'restart', reason: 'a waiter that is woken for no reason goes on waiting' };
    case 'lock':
    case 'unlock':
      return futexLockDecision(state);
    case 'wait-requeue':
      return state.activity === 'asleep'
        ? { outcome: 'restart', reason: 'it compares the futex word again' }
        : { outcome: 'in-doubt', reason: 'it may have got the lock already' };
    default:
      return { outcome: 'in-doubt', reason: 'it changes a futex word or moves waiters' };
  }
}

/**
 * Priority-inheriting locks are handed on with their word: whoever it names has the lock (kernel/futex/pi.c).
 */
function futexLockDecision({ futex, ownsFutex }: SyscallState): SyscallDecision {
  if (ownsFutex === undefined) return { outcome: 'in-doubt', reason: 'its futex word cannot be read' };
  if (ownsFutex === (futex === 'lock')) {
    return { outcome: 'result', value: 0n, reason: 'the futex word says that it is done' };
  }
  return { outcome: 'restart', reason: 'the futex word says that it is not done' };
}

/** What witnesses of how far it has come decide; undefined if they do not. */
function witnessed({ progress, known }: SyscallState): SyscallDecision | undefined {
  // What has certainly not begun, or is still at it, must be done to its end, whatever can be seen of it.
  if (progress.kind === 'not-begun') return { outcome: 'restart', reason: progress.reason };
  if (known !== undefined) return { outcome: 'result', ...known };
  return progress.kind === 'done' ? { outcome: 'result', value: 0n, reason: progress.reason } : undefined;
}

/** The descriptor is taken away before anything else. */
function closeDecision({ isOpen, isOnlyUser }: SyscallState): SyscallDecision {
  if (!isOpen) return { outcome: 'result', value: 0n, reason: 'its descriptor is closed' };
  return isOnlyUser
    ? { outcome: 'restart', reason: 'its descriptor is open, and nobody else opens any' }
    : { outcome: 'in-doubt', reason: 'its descriptor is open, or open again' };
}

function unfinished(state: SyscallState, name: string): SyscallDecision {
  const row = syscallRow(name);
  const decided = row.class === 'never' || row.class === 'exec' ? undefined : witnessed(state);
  if (decided !== undefined) return decided;
  const asleep = state.activity === 'asleep';
  switch (row.class) {
    case 'pure':
      return state.notTwice === undefined || asleep
        ? { outcome: 'restart', reason: row.reason }
        : { outcome: 'in-doubt', reason: state.notTwice };
    case 'close':
      return closeDecision(state);
    case 'futex':
      return futexDecision(state);
    case 'transfer':
      return state.transfer === undefined
        ? { outcome: 'in-doubt', reason: 'its file descriptor is not open' }
        : transferDecision(state.transfer, state);
    case 'wait':
    case 'once':
      return asleep
        ? { outcome: 'restart', reason: 'a sleep that a signal can end comes before any effect' }
        : { outcome: 'in-doubt', reason: row.reason };
    case 'partial':
      return { outcome: 'in-doubt', reason: row.reason };
    case 'exec':
      return state.isBeforeExec
        ? { outcome: 'restart', reason: 'it has not replaced anything yet' }
        : { outcome: 'refuse', reason: row.reason };
    case 'never':
      return { outcome: 'refuse', reason: row.reason };
  }
}

/** What the time that a call may take changes about making it again. */
function inTime(state: SyscallState, name: string, decision: SyscallDecision): SyscallDecision {
  if (decision.outcome !== 'restart') return decision;
  if (state.hasSocketTimeout) {
    // sock_intr_errno() (include/net/sock.h)
    return { outcome: 'eintr', reason: 'a wait on a socket with a time limit is never restarted' };
  }
  if (state.timeLeft === 0n && (name === 'nanosleep' || name === 'clock_nanosleep')) {
    return { outcome: 'result', value: 0n, reason: 'its time was over' };
  }
  return state.timeLeft === 'unknown' && state.activity !== 'asleep'
    ? { outcome: 'in-doubt', reason: 'nothing tells how much of its time was left' }
    : decision;
}

/** Calls that a signal handler ends whatever its flags are (signal(7)). Others go on if it has SA_RESTART. */
const endedByHandler: ReadonlySet<string> = new Set(
  `pause poll ppoll select pselect6 epoll_wait epoll_pwait epoll_pwait2 nanosleep clock_nanosleep semop semtimedop
  msgrcv msgsnd rt_sigsuspend rt_sigtimedwait io_getevents io_pgetevents io_uring_enter`.split(/\s+/),
);

/**
 * A signal that comes now wakes who is asleep: its call ends before it has what it waited for. Signals that
 * were pending have woken somebody already, and who sleeps all the same is not the one that gets them.
 */
function behindHandler(state: SyscallState, name: string, decision: SyscallDecision): SyscallDecision {
  const { wokenBy, activity } = state;
  if (decision.outcome !== 'restart' || activity !== 'asleep' || wokenBy === undefined) return decision;
  return endedByHandler.has(name) || !wokenBy.restarts
    ? { outcome: 'eintr', reason: 'a signal handler runs first, which ends it' }
    : decision;
}

/** A doubt that the kernel stack might have ended, if it could have been read. */
function withStack({ progress }: SyscallState, decision: SyscallDecision): SyscallDecision {
  if (decision.outcome !== 'in-doubt' || progress.kind !== 'unknown' || progress.why === undefined)
    return decision;
  return { ...decision, reason: `${decision.reason}; its kernel stack does not tell: ${progress.why}` };
}

/**
 * Decides what becomes of the system call that a thread was in: DESIGN's table, the details in
 * `syscallTable`. Pure: everything it has to know is in `state`.
 */
export function decideSyscall(state: SyscallState): SyscallDecision {
  if (state.call === undefined) return { outcome: 'resume', reason: 'it was in no system call' };
  if (state.ax !== ENOSYS) return finished(state, state.ax);
  const name = state.call;
  const made = inTime(state, name, unfinished(state, name));
  const decision = withStack(state, behindHandler(state, name, made));
  if (!state.panicked || decision.outcome === 'refuse' || decision.outcome === 'result') return decision;
  const known = decision.outcome === 'in-doubt' ? `, and ${decision.reason}` : '';
  return {
    outcome: 'in-doubt',
    reason: `this is the call in which the kernel died; it is not made again${known}`,
  };
}
