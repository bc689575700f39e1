/**
 * What a system call that was in progress needs, by what it does to the world. The reason is printed in the
 * report.
 *
 * - `pure`: no effect, or the same effect again. It is restarted whatever the task was doing, unless its
 *   arguments make it `once` (src/capture/calls/syscall-repeat.ts).
 * - `close`: takes a descriptor away before anything else; whether it has done so is looked up.
 * - `wait`: waits, and takes something when the wait is over. Asleep, nothing has been taken yet; otherwise
 *   in doubt.
 * - `transfer`: moves bytes through a file descriptor; how far it came is looked up.
 * - `futex`: waits or wakes on a futex word; a wait that ends for no reason is what every caller has to
 *   expect.
 * - `once`: has an effect that must not happen twice. Asleep (interruptibly) the kernel would have restarted
 *   it.
 * - `partial`: moves bytes or messages in several steps, of which none can be looked up.
 * - `exec`: is made again, as long as it has not replaced anything; else the process is another one already.
 * - `never`: a process in the middle of it is not there any more, or not yet.
 */
export type SyscallClass =
  | 'pure'
  | 'close'
  | 'wait'
  | 'transfer'
  | 'futex'
  | 'once'
  | 'partial'
  | 'exec'
  | 'never';

/** One row of the table: all the calls that are treated alike, and why. */
export interface SyscallRow {
  readonly class: SyscallClass;
  readonly reason: string;
  readonly calls: string;
  /** Whether it was made or not makes no difference to anybody but the thread that makes it. */
  readonly isIdle?: true;
  /** It is done to the process as a whole: what of it is under way goes on whatever becomes of the thread. */
  readonly isOfProcess?: true;
}

/** The table. Calls that no row names are treated as `once`. */
export const syscallTable: readonly SyscallRow[] = [
  {
    class: 'pure',
    reason: 'only asks for something',
    isIdle: true,
    calls: `stat fstat lstat newfstatat statx statfs fstatfs ustat access faccessat faccessat2 readlink readlinkat getcwd
      getdents getdents64 getpid gettid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getresuid getresgid
      getgroups getpriority getrlimit getrusage gettimeofday time times clock_gettime clock_getres getitimer
      timer_gettime timerfd_gettime timer_getoverrun getsockname getpeername getsockopt getcpu sysinfo uname capget
      getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr mincore get_mempolicy get_robust_list
      sched_getaffinity sched_getparam sched_getscheduler sched_getattr sched_get_priority_max
      sched_get_priority_min sched_rr_get_interval rt_sigpending getrandom ioprio_get name_to_handle_at kcmp lseek
      cachestat process_vm_readv lookup_dcookie listmount statmount`,
  },
  {
    class: 'pure',
    reason: 'sets what it sets to the same value again',
    calls: `rt_sigaction rt_sigprocmask sigaltstack brk mprotect pkey_mprotect madvise munmap mlock mlock2 munlock
      munlockall mlockall msync fsync fdatasync sync syncfs sync_file_range truncate ftruncate fallocate fadvise64
      readahead chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat
      fchdir dup2 dup3 listen setsockopt setuid setgid setreuid setregid
      setresuid setresgid setgroups setpgid setpriority setrlimit prlimit64 capset prctl
      arch_prctl sethostname set_tid_address set_robust_list sched_setaffinity sched_setparam
      sched_setscheduler sched_setattr ioprio_set mbind set_mempolicy set_mempolicy_home_node membarrier
      timer_settime timerfd_settime setitimer epoll_ctl inotify_add_watch setxattr lsetxattr fsetxattr
      process_madvise flock move_pages migrate_pages`,
  },
  {
    class: 'pure',
    reason: 'maps or opens something that nobody knows of yet; at worst it is there twice',
    calls: `mmap open openat openat2 socket socketpair pipe pipe2 epoll_create epoll_create1 eventfd eventfd2 signalfd
      signalfd4 timerfd_create inotify_init inotify_init1 memfd_create pidfd_open dup shmget semget msgget`,
  },
  {
    class: 'pure',
    reason: 'waits for a time or for events, and takes nothing',
    isIdle: true,
    calls: `nanosleep clock_nanosleep poll ppoll select pselect6 epoll_wait epoll_pwait epoll_pwait2 pause rt_sigsuspend
      sched_yield`,
  },
  {
    class: 'pure',
    reason: 'reads or writes at a position that it is given',
    calls: 'pread64 pwrite64 preadv pwritev preadv2 pwritev2',
  },
  {
    class: 'close',
    reason: 'takes the descriptor away first',
    calls: 'close',
  },
  {
    class: 'wait',
    reason: 'waits for a child, a connection, a message, a signal or a lock, and takes it when it is there',
    calls: `wait4 waitid accept accept4 connect rt_sigtimedwait semop semtimedop msgrcv msgsnd mq_timedreceive
      mq_timedsend fcntl recvmmsg io_getevents io_pgetevents`,
  },
  {
    class: 'wait',
    reason: 'gives requests to the kernel, and waits for completions',
    calls: 'io_uring_enter',
  },
  {
    class: 'transfer',
    reason: 'moves bytes through a file descriptor',
    calls: 'read write readv writev sendto recvfrom sendmsg recvmsg',
  },
  {
    class: 'futex',
    reason: 'a futex wait may end for no reason at any time',
    isIdle: true,
    calls: 'futex futex_waitv futex_wait',
  },
  {
    class: 'partial',
    reason: 'moves bytes or messages in several steps',
    calls: 'sendfile splice tee vmsplice copy_file_range sendmmsg process_vm_writev',
  },
  {
    class: 'partial',
    reason: 'goes on with a call that nothing names',
    calls: 'restart_syscall',
  },
  {
    class: 'exec',
    reason: 'the process was becoming another one',
    isOfProcess: true,
    calls: 'execve execveat',
  },
  {
    class: 'never',
    reason: 'the process was about to end',
    isOfProcess: true,
    calls: 'exit exit_group',
  },
  {
    class: 'never',
    reason: 'the registers were being replaced',
    calls: 'rt_sigreturn',
  },
  {
    class: 'never',
    reason: 'it waits for requests in flight, of a context that nothing leads to any more',
    isOfProcess: true,
    calls: 'io_destroy',
  },
  {
    class: 'once',
    reason: 'has an effect that must not happen twice',
    calls: `clone clone3 fork vfork kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal rename
      renameat renameat2 link linkat unlink unlinkat symlink symlinkat mkdir mkdirat rmdir mknod mknodat creat mount
      umount2 ioctl mremap shmat shmdt shmctl semctl msgctl timer_create timer_delete unshare setns setsid
      removexattr lremovexattr fremovexattr reboot ptrace alarm mq_open mq_unlink mq_notify keyctl add_key
      bind shutdown seccomp rseq close_range`,
  },
  {
    class: 'once',
    reason: 'says or goes by what was before, which it has perhaps changed',
    calls: 'umask personality setfsuid setfsgid chdir chroot',
  },
];

const unlisted: SyscallRow = {
  class: 'once',
  reason: 'is not in the table of system calls',
  calls: '',
};

const rows: ReadonlyMap<string, SyscallRow> = new Map(
  syscallTable.flatMap((row) => row.calls.split(/\s+/).map((name) => [name, row] as const)),
);

/** The row of a system call, by name. */
export function syscallRow(name: string): SyscallRow {
  return rows.get(name) ?? unlisted;
}

/** System calls whose first argument is a file descriptor, for reports. */
const onDescriptor: ReadonlySet<string> = new Set(
  `read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 sendto recvfrom sendmsg recvmsg
  sendmmsg recvmmsg accept accept4 connect close fcntl ioctl flock fsync fdatasync ftruncate fallocate getdents64
  epoll_wait epoll_pwait epoll_pwait2 splice tee vmsplice copy_file_range`.split(/\s+/),
);

/** Whether the first argument of a system call is a file descriptor. */
export function takesDescriptor(name: string): boolean {
  return onDescriptor.has(name);
}

const clones: ReadonlySet<string> = new Set(['fork', 'vfork', 'clone', 'clone3']);

/** Whether a system call makes a process or a thread. */
export function isClone(name: string): boolean {
  return clones.has(name);
}
