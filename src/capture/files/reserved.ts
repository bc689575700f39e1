import { taskPtRegs } from '../../linux/arch/index.ts';
import type { FdSlot } from '../../linux/fdtable.ts';
import { forEachThread } from '../../linux/pid.ts';
import { type Task, taskAt } from '../../linux/sched.ts';
import { readable } from '../../vmcore/errors.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';

/**
 * System calls that reserve a number and install its file later (get_unused_fd_flags, fs/file.c), or free
 * both one after the other.
 */
const one: ReadonlySet<string> = new Set(
  `open openat openat2 creat open_by_handle_at open_tree socket accept accept4 dup fcntl epoll_create epoll_create1
  eventfd eventfd2 signalfd signalfd4 timerfd_create inotify_init inotify_init1 fanotify_init memfd_create memfd_secret
  userfaultfd perf_event_open bpf mq_open pidfd_open pidfd_getfd clone clone3 fsopen fspick fsmount seccomp
  landlock_create_ruleset io_uring_setup getsockopt recvmmsg close close_range`.split(/\s+/),
);
/** Those that reserve two: both ends, or a pidfd and a file that came in a message; a driver may. */
const two: ReadonlySet<string> = new Set(['pipe', 'pipe2', 'socketpair', 'recvmsg', 'ioctl']);

/** How many numbers the system call that a thread is in may have reserved. */
export function reservedBy(name: string): number {
  if (two.has(name) || name.startsWith('syscall ')) return 2;
  return one.has(name) ? 1 : 0;
}

function mayReserve(context: CaptureContext, task: Task): number {
  const { kernel } = context;
  const number = Number(BigInt.asIntN(64, taskPtRegs(kernel, task.stack).orig_ax));
  return number < 0 ? 0 : reservedBy(kernel.architecture.systemCalls.name(number));
}

/** All threads that use a file table, as far as they can be read. */
function usersOf(context: CaptureContext, files: bigint): Task[] {
  const { kernel, list } = context;
  return list.tasks
    .filter((leader) => readable(() => taskAt(kernel, leader).files) === files)
    .flatMap((leader) => readable(() => [...forEachThread(kernel, leader)]) ?? [])
    .map((thread) => taskAt(kernel, thread));
}

/**
 * Numbers that are taken but have no file yet are those of files that are being opened: such a system call is
 * made again. Throws a FileRefusal if there are more than the threads that share the table can be opening: a
 * descriptor was lost. Throws a VmcoreError if a thread cannot be read.
 *
 * @param files address of the files_struct
 */
export function checkReserved(context: CaptureContext, files: bigint, slots: readonly FdSlot[]): void {
  const reserved = slots.filter(({ file }) => file === 0n);
  if (reserved.length === 0) return;
  const expected = usersOf(context, files).reduce((sum, task) => sum + mayReserve(context, task), 0);
  if (reserved.length <= expected) return;
  const numbers = reserved.map(({ fd }) => fd).join(', ');
  throw new FileRefusal(
    `has descriptors without a file (${numbers}), of which its system calls can be opening ${expected}`,
  );
}
