import type { Kernel } from '../vmcore/kernel.ts';

/** What an open file is, told by its `f_op`. */
export type FileKind =
  | 'pipe'
  | 'socket'
  | 'tty'
  | 'hung-up-tty'
  | 'eventfd'
  | 'eventpoll'
  | 'timerfd'
  | 'signalfd'
  | 'inotify'
  | 'fanotify'
  | 'pidfd'
  | 'userfaultfd'
  | 'io_uring'
  | 'perf event'
  | 'BPF object'
  | 'namespace';

/** Symbols of the `struct file_operations` of each kind; a release has some of them. */
const operations: Readonly<Record<string, FileKind>> = {
  pipefifo_fops: 'pipe',
  socket_file_ops: 'socket',
  tty_fops: 'tty',
  console_fops: 'tty',
  ptmx_fops: 'tty',
  hung_up_tty_fops: 'hung-up-tty',
  eventfd_fops: 'eventfd',
  eventpoll_fops: 'eventpoll',
  timerfd_fops: 'timerfd',
  signalfd_fops: 'signalfd',
  inotify_fops: 'inotify',
  fanotify_fops: 'fanotify',
  pidfd_fops: 'pidfd',
  pidfs_file_operations: 'pidfd',
  userfaultfd_fops: 'userfaultfd',
  io_uring_fops: 'io_uring',
  perf_fops: 'perf event',
  bpf_map_fops: 'BPF object',
  bpf_prog_fops: 'BPF object',
  bpf_link_fops: 'BPF object',
  bpf_iter_fops: 'BPF object',
  ns_file_operations: 'namespace',
};

const kindsByKernel = new WeakMap<Kernel, ReadonlyMap<bigint, FileKind>>();

function kindsOf(kernel: Kernel): ReadonlyMap<bigint, FileKind> {
  let kinds = kindsByKernel.get(kernel);
  if (kinds === undefined) {
    const found = Object.entries(operations).flatMap(([symbol, kind]): [bigint, FileKind][] => {
      const address = kernel.symbolMaybe(symbol);
      return address === undefined ? [] : [[address, kind]];
    });
    kinds = new Map(found);
    kindsByKernel.set(kernel, kinds);
  }
  return kinds;
}

/** The kind that file operations stand for; undefined for a file with a path, whatever is behind it. */
export function fileKind(kernel: Kernel, fop: bigint): FileKind | undefined {
  return kindsOf(kernel).get(fop);
}
