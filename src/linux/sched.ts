import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  array,
  bool,
  cstring,
  embed,
  flags,
  optional,
  pointer,
  s32,
  struct,
  u8,
  u32,
  u64,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';
import { threadStruct } from './arch/x86/processor.ts';
import { restartBlockStruct } from './restart-block.ts';

/** `struct task_struct` (include/linux/sched.h). */
export const taskStruct = struct('task_struct', {
  threadFlags: flags.at('thread_info.flags'),
  status: u32.at('thread_info.status'),
  // 5.16 moved it from the task; a kernel built for one CPU has none
  cpu: optional(u32.at('thread_info.cpu', 'cpu')),
  __state: u32,
  stack: pointer,
  task_works: pointer,
  flags: u32,
  ptrace: u32,
  on_cpu: s32,
  static_prio: s32,
  rt_priority: u32,
  policy: u32,
  sched_reset_on_fork: bool,
  nr_cpus_allowed: s32,
  cpus_mask: addressOf('cpus_mask'),
  tasks: addressOf('tasks'),
  user_cpus_ptr: optional(pointer),
  mm: pointer,
  exit_state: s32,
  exit_code: s32,
  exit_signal: s32,
  pdeath_signal: s32,
  jobctl: flags,
  personality: u32,
  in_execve: bool,
  restore_sigmask: bool,
  frozen: bool,
  atomic_flags: flags,
  restart_block: embed(restartBlockStruct),
  pid: s32,
  tgid: s32,
  real_parent: pointer,
  parent: pointer,
  group_leader: pointer,
  children: addressOf('children'),
  ptraced: addressOf('ptraced'),
  sibling: addressOf('sibling'),
  thread_node: addressOf('thread_node'),
  thread_pid: pointer,
  vfork_done: pointer,
  splice_pipe: pointer,
  set_child_tid: u64,
  clear_child_tid: u64,
  // up to 6.1 each thread counts for itself and adds its counts up every 64 page faults (SPLIT_RSS_COUNTING)
  rssCounts: optional(array(s32).at('rss_stat.count')),
  start_boottime: u64,
  utime: u64,
  stime: u64,
  sum_exec_runtime: u64.at('se.sum_exec_runtime'),
  real_cred: pointer,
  cred: pointer,
  comm: cstring,
  io_context: optional(pointer),
  fs: pointer,
  files: pointer,
  io_uring: optional(pointer),
  nsproxy: pointer,
  signal: pointer,
  sighand: pointer,
  blocked: u64.at('blocked.sig[0]'),
  real_blocked: u64.at('real_blocked.sig[0]'),
  saved_sigmask: u64.at('saved_sigmask.sig[0]'),
  pendingList: addressOf('pending.list'),
  pendingSignal: u64.at('pending.signal.sig[0]'),
  sas_ss_sp: u64,
  sas_ss_size: u64,
  sas_ss_flags: u32,
  loginuid: optional(u32),
  seccompMode: s32.at('seccomp.mode'),
  seccompFilter: pointer.at('seccomp.filter'),
  /** Where system calls are allowed all the same: any addresses. */
  dispatchOffset: u64.at('syscall_dispatch.offset'),
  dispatchSelector: pointer.at('syscall_dispatch.selector'),
  robust_list: u64,
  compat_robust_list: optional(u64),
  // with CONFIG_FUTEX_PI
  pi_state_list: optional(addressOf('pi_state_list')),
  rseq: u64,
  // 6.3 made the length variable and keeps it
  rseq_len: optional(u32),
  rseq_sig: u32,
  timer_slack_ns: u64,
  default_timer_slack_ns: u64,
  sysvUndo: pointer.at('sysvsem.undo_list'),
  mempolicy: optional(pointer),
  cgroups: pointer,
  core_cookie: optional(u64),
  user_event_mm: optional(pointer),
  uclampMin: optional(u32.at('uclamp_req[0].user_defined')),
  uclampMax: optional(u32.at('uclamp_req[1].user_defined')),
  // 6.12: a slice that sched_setattr(2) asked for
  custom_slice: optional(u8.at('se.custom_slice')),
  thread: embed(threadStruct),
});

export type Task = ViewOf<typeof taskStruct>;

/** `struct rq` (kernel/sched/sched.h): the run queue of a CPU. */
export const rqStruct = struct('rq', { clock: u64, curr: pointer });

/**
 * `struct task_group` (kernel/sched/sched.h), what the `cpu` controller keeps of a cgroup; in nanoseconds.
 */
export const taskGroupStruct = struct('task_group', {
  css: addressOf(),
  shares: ulongNumber,
  quota: u64.at('cfs_bandwidth.quota'),
  period: u64.at('cfs_bandwidth.period'),
});

/** Bits of `task_struct.__state` and `exit_state` (include/linux/sched.h). */
export const taskState = {
  interruptible: 0x0001,
  uninterruptible: 0x0002,
  stopped: 0x0004,
  traced: 0x0008,
  exitDead: 0x0010,
  exitZombie: 0x0020,
  wakeKill: 0x0100,
  noLoad: 0x0400,
  new: 0x0800,
} as const;

/** Bits of `task_struct.flags`. PF_IO_WORKER is bit 4 and PF_KTHREAD bit 21 in 5.12 and later. */
export const PF = {
  exiting: 0x4,
  ioWorker: 0x10,
  signaled: 0x400,
  mceProcess: 0x80,
  userWorker: 0x4000,
  memallocNoio: 0x0008_0000,
  localThrottle: 0x0010_0000,
  kthread: 0x0020_0000,
  mceEarly: 0x0800_0000,
} as const;

/** Bits of `thread_info.flags` (arch/x86/include/asm/thread_info.h): the same in 6.1 and 6.12. */
export const TIF = {
  sigpending: 2,
  ssbd: 5,
  specIb: 9,
  specL1dFlush: 10,
  needFpuLoad: 14,
  nocpuid: 15,
  notsc: 16,
  ioBitmap: 22,
  addr32: 29,
} as const;

/**
 * Bits of `task_struct.atomic_flags`; from the second on all are limits on speculation, below it is cpuset's.
 */
export const PFA = { noNewPrivs: 0, specSsbDisable: 3 } as const;
/** `thread_info.status`: TS_COMPAT, the running system call came through a 32-bit entry. */
export const TS_COMPAT = 2;

/** Whether a TIF_* flag of the task is set. */
export function hasThreadFlag(task: Task, bit: number): boolean {
  return task.threadFlags.has(bit);
}

/** prctl(PR_SET_NO_NEW_PRIVS). */
export function hasNoNewPrivs(task: Task): boolean {
  return task.atomic_flags.has(PFA.noNewPrivs);
}

/** Scheduling policies (include/uapi/linux/sched.h), named as in sched(7); `ext` came with 6.12. */
export const schedPolicy = { other: 0, fifo: 1, rr: 2, batch: 3, idle: 5, deadline: 6, ext: 7 } as const;

/** Nice value, -20 to 19 (include/linux/sched/prio.h). */
export function niceOf(task: Task): number {
  return task.static_prio - 120;
}

/** The view of a task. */
export function taskAt(kernel: Kernel, address: bigint): Task {
  return kernel.bind(taskStruct).at(address);
}

/** CPUs of the affinity mask, ascending. `nr_cpu_ids` bits are looked at. */
export function allowedCpus(kernel: Kernel, task: Task): number[] {
  const ids = kernel.memory.u32(kernel.symbol('nr_cpu_ids'));
  const mask = kernel.memory.read(task.cpus_mask, Math.ceil(ids / 64) * 8);
  return Array.from({ length: ids }, (_, cpu) => cpu).filter(
    (cpu) => ((mask[cpu >> 3] ?? 0) & (1 << (cpu & 7))) !== 0,
  );
}
