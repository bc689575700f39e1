import { SIGINFO_BYTES } from '../system/abi.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  array,
  bool,
  optional,
  pointer,
  s16,
  s32,
  s64,
  struct,
  u32,
  u64,
  type ViewOf,
} from '../vmcore/view.ts';
import { settled } from './container.ts';
import { listForEachEntry } from './list.ts';
import { kSigactionStruct, sigqueueStruct } from './signal-types.ts';

/** `struct signal_struct` (include/linux/sched/signal.h): what the threads of a process share. */
export const signalStruct = struct('signal_struct', {
  nr_threads: s32,
  live: s32.at('live.counter'),
  thread_head: addressOf('thread_head'),
  sharedPendingList: addressOf('shared_pending.list'),
  sharedPendingSignal: u64.at('shared_pending.signal.sig[0]'),
  group_exit_code: s32,
  group_exec_task: pointer,
  core_state: pointer,
  group_stop_count: s32,
  flags: u32,
  is_child_subreaper: bool,
  posix_timers: addressOf('posix_timers'),
  real_timer: addressOf('real_timer'),
  it_real_incr: s64,
  profExpires: u64.at('it[0].expires'),
  profInterval: u64.at('it[0].incr'),
  virtExpires: u64.at('it[1].expires'),
  virtInterval: u64.at('it[1].incr'),
  leader: s32,
  tty: pointer,
  tty_old_pgrp: pointer,
  utime: u64,
  stime: u64,
  sumSchedRuntime: u64.at('sum_sched_runtime'),
  rlim: addressOf('rlim'),
  oom_score_adj: s16,
  oom_score_adj_min: s16,
  autogroup: optional(pointer),
  // with CONFIG_AUDIT
  audit_tty: optional(u32),
  /** By enum pid_type. */
  pids: array(pointer),
});

export type Signal = ViewOf<typeof signalStruct>;

/** `signal_struct.flags`: the group has stopped, or is exiting. */
export const SIGNAL = { stopStopped: 0x1, stopContinued: 0x2, groupExit: 0x4 } as const;

/**
 * The `struct pid` of a process, or of the group or session that it is in; `signal` is the address of its
 * `signal_struct`.
 */
export function pidOfRole(
  kernel: Kernel,
  signal: bigint,
  role: 'PIDTYPE_TGID' | 'PIDTYPE_PGID' | 'PIDTYPE_SID',
): bigint {
  return kernel.bind(signalStruct).at(signal).pids[kernel.enumerator(role)] ?? 0n;
}

/** A bit of `signal_struct.audit_tty` (include/linux/audit.h). */
const AUDIT_TTY_ENABLE = 0x1;

/** Whether what it reads from terminals goes to the audit log (AUDIT_TTY_SET; pam_tty_audit(8)). */
export function isTtyAudited({ audit_tty: flags = 0 }: Pick<Signal, 'audit_tty'>): boolean {
  return (flags & AUDIT_TTY_ENABLE) !== 0;
}

/** `struct autogroup` (kernel/sched/autogroup.h). */
export const autogroupStruct = struct('autogroup', { nice: s32 });

/** Nice value of a session's scheduling group (/proc/PID/autogroup); 0 where there is none. */
export function autogroupNice(kernel: Kernel, { autogroup }: Signal): number {
  return (autogroup ?? 0n) === 0n ? 0 : kernel.bind(autogroupStruct).at(autogroup ?? 0n).nice;
}

/** `struct sighand_struct`: the handlers of a process. */
export const sighandStruct = struct('sighand_struct', { action: addressOf('action') });
/** Number of signals (_NSIG). */
export const NSIG = 64;

export interface KernelSigaction {
  readonly handler: bigint;
  readonly flags: bigint;
  readonly restorer: bigint;
  readonly mask: bigint;
}

/** The 64 handlers of a `sighand_struct`; index 0 is signal 1. */
export function readSigactions(kernel: Kernel, sighand: bigint): KernelSigaction[] {
  const { action } = kernel.bind(sighandStruct).at(sighand);
  const type = kernel.bind(kSigactionStruct);
  return Array.from({ length: NSIG }, (_, i) => {
    const { handler, flags, restorer, mask } = type.at(action + BigInt(i * type.size));
    return { handler, flags, restorer, mask };
  });
}

/** What the kernel keeps of a siginfo_t: the bytes that can be other than zero. */
const KERNEL_SIGINFO_BYTES = 48;
/** More than RLIMIT_SIGPENDING of any machine that fits this reader; a longer list is a loop. */
const MAX_PENDING = 1 << 20;

/** A pending signal: its number, and siginfo_t if the kernel kept one. */
export interface PendingSignal {
  readonly signal: number;
  readonly info: Uint8Array;
}

/**
 * siginfo of a signal that is pending without a queue entry: SI_USER from nobody (as collect_signal() makes
 * it up).
 */
function bareSiginfo(signal: number): Uint8Array {
  const info = Buffer.alloc(SIGINFO_BYTES);
  info.writeInt32LE(signal, 0);
  return info;
}

/**
 * Queued signals of a `struct sigpending`, in order; signals that are only in the bit mask (the queue was
 * full, or a sender without siginfo) follow. Throws a ContainerError if the list is damaged or holds no
 * signal.
 */
export function readPending(kernel: Kernel, list: bigint, mask: bigint): PendingSignal[] {
  return settled(kernel, () => readQueued(kernel, list, mask));
}

function readQueued(kernel: Kernel, list: bigint, mask: bigint): PendingSignal[] {
  const type = kernel.bind(sigqueueStruct);
  const pending: PendingSignal[] = [];
  let seen = 0n;
  for (const queued of listForEachEntry(kernel, list, type, 'list', MAX_PENDING)) {
    const info = Buffer.alloc(SIGINFO_BYTES);
    kernel.memory.read(queued.info, KERNEL_SIGINFO_BYTES).copy(info);
    const signal = info.readInt32LE(0);
    if (signal < 1 || signal > NSIG) throw new ContainerError('sigpending', list, `holds signal ${signal}`);
    seen |= 1n << BigInt(signal - 1);
    pending.push({ signal, info });
  }
  for (let signal = 1; signal <= NSIG; signal++) {
    const bit = 1n << BigInt(signal - 1);
    if ((mask & bit) !== 0n && (seen & bit) === 0n) pending.push({ signal, info: bareSiginfo(signal) });
  }
  return pending;
}

/** The 16 resource limits of a process: soft and hard, RLIM_INFINITY as all ones. */
export function readLimits(kernel: Kernel, signal: Signal): { soft: bigint; hard: bigint }[] {
  const raw = kernel.memory.read(signal.rlim, 16 * 16);
  return Array.from({ length: 16 }, (_, i) => ({
    soft: raw.readBigUInt64LE(i * 16),
    hard: raw.readBigUInt64LE(i * 16 + 8),
  }));
}
